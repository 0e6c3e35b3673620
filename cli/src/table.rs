//! Tables for people: columns as wide as their widest cell.
//!
//! Owns alignment. Refuses to know what the cells mean. Invariant: a row is one line, whatever its cells hold.

use unicode_width::UnicodeWidthStr as _;

use crate::text;

/// Columns stand this far apart.
const GAP: usize = 3;

/// Aligns rows; the first may be a header.
pub fn align(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| text::cell(cell)).collect())
        .collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            if column == widths.len() {
                widths.push(0);
            }
            widths[column] = widths[column].max(cell.width());
        }
    }
    let mut page = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if column + 1 < row.len() {
                line.extend(std::iter::repeat_n(' ', widths[column] - cell.width() + GAP));
            }
        }
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn wide_characters_and_line_breaks_keep_their_columns() {
        let page = align(&[
            row(&["ID", "NAME", "X"]),
            row(&["囲い", "a\nb", "1"]),
            row(&["1", "", "2"]),
        ]);
        assert_eq!(page, "ID     NAME   X\n囲い   a b    1\n1             2\n");
    }
}
