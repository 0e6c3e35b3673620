//! `kakoi system check`: what is damaged on this device, what was healed, and what must be fetched again.

use kakoi_api::kakoi::{CheckFinding, SystemCheck};

use crate::client::{Client, ClientError, Target};
use crate::failure::Failure;
use crate::listing::pretty;
use crate::{output, table, text};

/// Printed after the options.
pub const EXIT_STATUS: &str = "\
Exit status:
  0    everything is whole, or was made so
  1    something is damaged, or must be fetched again
  125  the check could not be made";

/// The arguments of `kakoi system check`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Repair what can be repaired; images that cannot be and that no container uses go
    #[arg(long)]
    repair: bool,
    /// Read everything and compare it with its digests: takes as long as there is content
    #[arg(long)]
    hash: bool,
    /// table or json
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Checks; the exit status is 1 where damage is left.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let target = Target::new("/system/check")
        .maybe("repair", arguments.repair.then_some("1"))
        .maybe("hash", arguments.hash.then_some("1"));
    let raw = client.post(target, None).await?;
    let check: SystemCheck = serde_json::from_value(raw.clone()).map_err(|cause| ClientError::Json {
        request: "system check".to_owned(),
        cause,
    })?;
    match arguments.format.as_str() {
        "json" => output::print(&pretty(&raw)?)?,
        _ => output::print(&spoken(&check))?,
    }
    Ok(u8::from(!check.whole))
}

fn spoken(check: &SystemCheck) -> String {
    let mut page = String::new();
    if !check.findings.is_empty() {
        let mut rows = vec![["DAMAGE", "OUTCOME", "OF", "PLACE"].map(str::to_owned).to_vec()];
        rows.extend(check.findings.iter().map(row));
        page.push_str(&table::align(&rows));
        page.push('\n');
    }
    for finding in check.findings.iter().filter(|finding| !finding.remedy.is_empty()) {
        page.push_str(&format!(
            "{}: {}\n",
            text::cell(&finding.place),
            text::cell(&finding.remedy)
        ));
    }
    for lost in &check.lost {
        page.push_str(&format!(
            "image {} is not whole: {}\n",
            text::cell(&lost.names.join(", ")),
            text::cell(&lost.remedy)
        ));
    }
    let looked = format!(
        "{} images ({} blobs, {} layers), {} containers and {} volumes were looked at{}",
        check.images,
        check.blobs,
        check.layers,
        check.containers,
        check.volumes,
        if check.hashed {
            ", and all content read"
        } else {
            ""
        },
    );
    let verdict = match (check.whole, check.findings.is_empty()) {
        (true, true) => "everything is whole",
        (true, false) => "everything is whole now",
        (false, _) => "not everything is whole",
    };
    page.push_str(&format!("{looked}: {verdict}.\n"));
    page
}

fn row(finding: &CheckFinding) -> Vec<String> {
    vec![
        finding.damage.clone(),
        finding.outcome.clone(),
        finding.of.join(", "),
        finding.place.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use kakoi_api::kakoi::LostImage;

    use super::*;

    #[test]
    fn damage_is_told_with_what_to_do() {
        let whole = SystemCheck {
            images: 2,
            whole: true,
            ..SystemCheck::default()
        };
        assert!(spoken(&whole).ends_with("were looked at: everything is whole.\n"));
        let hurt = SystemCheck {
            findings: vec![CheckFinding {
                damage: "blob-missing".into(),
                place: "images/blobs/sha256/00".into(),
                of: vec!["app:1".into()],
                outcome: "lost".into(),
                remedy: String::new(),
            }],
            lost: vec![LostImage {
                names: vec!["app:1".into()],
                remedy: "kakoi pull app:1".into(),
                ..LostImage::default()
            }],
            ..SystemCheck::default()
        };
        let page = spoken(&hurt);
        assert!(page.contains("blob-missing") && page.contains("app:1"), "{page}");
        assert!(
            page.contains("image app:1 is not whole: kakoi pull app:1\n"),
            "{page}"
        );
        assert!(page.ends_with("not everything is whole.\n"), "{page}");
    }
}
