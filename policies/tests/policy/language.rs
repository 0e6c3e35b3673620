//! The language: what is read, and what each mistake is told.

use kakoi_policy::{Ceiling, DOCUMENT_BYTES_MAX, Diagnostics, parse};

fn errors(text: &str) -> Diagnostics {
    parse("app.yaml", text)
        .err()
        .unwrap_or_else(|| panic!("accepted:\n{text}"))
}

/// Each document has an error of which some words must be said, at a line and column.
fn check(rows: &[(&str, &str, (u32, u32), &str)]) {
    for (what, body, at, says) in rows {
        let text = format!("kakoi: 1\n{body}\n");
        let found = errors(&text);
        let shown = found.to_string();
        assert!(shown.contains(says), "{what}: wanted `{says}` in\n{shown}");
        let first = &found.list()[0];
        assert_eq!((first.origin.line, first.origin.column), *at, "{what}:\n{shown}");
    }
}

#[test]
fn a_misspelt_field_is_shown_and_corrected() {
    let found = errors("kakoi: 1\nname: broker\ncapabilites: [CHOWN]\n");
    let want = "\
error: unknown field `capabilites`
 --> app.yaml:3:1
  |
3 | capabilites: [CHOWN]
  | ^^^^^^^^^^^ did you mean `capabilities`?";
    assert!(found.to_string().starts_with(want), "{found}");
    assert!(
        found
            .to_string()
            .contains("= help: expected one of `kakoi`, `name`, `extends`"),
        "{found}"
    );
}

#[test]
fn every_error_of_a_document_is_found_at_once() {
    let found = errors(
        "kakoi: 1\nnmae: x\ncapabilities: [CHOWNN, SYS_ADMN]\nsystem_calls:\n  allow: [opennat, \"@file-sytem\"]\nlimits: {memory: lots}\nprocess: {umask: 9}\n",
    );
    let lines: Vec<u32> = found.list().iter().map(|d| d.origin.line).collect();
    assert_eq!(lines, [2, 3, 3, 5, 5, 6, 7], "{found}");
    let shown = found.to_string();
    for near in ["`name`", "`CHOWN`", "`SYS_ADMIN`", "`openat`", "`@file-system`"] {
        assert!(
            shown.contains(&format!("did you mean {near}?")),
            "{near} in\n{shown}"
        );
    }
    let json = found.to_json();
    assert_eq!(json[1]["origin"]["line"], 3);
    assert_eq!(json[1]["origin"]["column"], 16);
    assert_eq!(json[1]["width"], 6);
    assert_eq!(json[1]["severity"], "error");
}

#[test]
fn yaml_that_means_different_things_to_different_readers_is_refused() {
    check(&[
        ("an anchor", "name: &a app", (2, 10), "an anchor"),
        ("an alias", "capabilities: [*a]", (2, 16), "an alias"),
        ("a merge key", "<<: {name: x}", (2, 1), "a merge key"),
        ("a tag", "name: !!str app", (2, 13), "a tag"),
        ("a key twice", "name: a\nname: b", (3, 1), "first given on line 2"),
        (
            "a nested key twice",
            "limits: {pids: 1, pids: 2}",
            (2, 19),
            "field `pids` twice",
        ),
        (
            "no is not a boolean",
            "process: {read_only_root: no}",
            (2, 27),
            "write `false`",
        ),
        (
            "yes is not a boolean",
            "network: {udp: yes}",
            (2, 16),
            "write `true`",
        ),
        (
            "quoted true is text",
            "network: {udp: \"true\"}",
            (2, 16),
            "write `true`",
        ),
        ("no is not a name", "name: no", (2, 7), "quote it"),
        ("null is not a name", "name: ~", (2, 7), "quote it"),
        ("nothing is not a value", "name:", (2, 1), "without a value"),
        ("octal", "limits: {pids: 0100}", (2, 16), "is not a quantity"),
        ("a float", "network: {bind: [80.5]}", (2, 18), "is not a TCP port"),
        (
            "sexagesimal",
            "network: {bind: [1:20]}",
            (2, 18),
            "is not a TCP port",
        ),
        (
            "a second document",
            "name: a\n---\nkakoi: 1",
            (3, 1),
            "a second document",
        ),
        (
            "a bidi override",
            "name: a\u{202e}b",
            (2, 8),
            "invisible character",
        ),
        (
            "a control character",
            "name: a\u{7}b",
            (2, 8),
            "invisible character",
        ),
        (
            "a list as a key",
            "? [a]\n: b",
            (2, 3),
            "where a field name is expected",
        ),
        ("broken", "name: [a", (2, 7), "not valid YAML"),
    ]);
    let with_directive = errors("%YAML 1.1\n---\nkakoi: 1\n");
    assert!(
        with_directive.to_string().contains("not valid YAML"),
        "{with_directive}"
    );
    parse(
        "app.yaml",
        "kakoi: 1\nname: \"no\"\nprocess: {user: \"1000:1000\", umask: 0022}\n",
    )
    .expect("quoted words are text");
}

#[test]
fn values_are_judged_by_their_field() {
    check(&[
        (
            "a version of the future",
            "name: a\nx: 1",
            (3, 1),
            "unknown field `x`",
        ),
        (
            "a path with dots",
            "files: {read: [/a/../etc]}",
            (2, 16),
            "without `.`, `..`",
        ),
        (
            "a relative path",
            "files: {read: [etc]}",
            (2, 16),
            "must be absolute",
        ),
        (
            "a glob of files",
            "files: {read: [\"/etc/*\"]}",
            (2, 16),
            "grant the folder",
        ),
        (
            "a device elsewhere",
            "devices: [/etc/passwd]",
            (2, 11),
            "start with `/dev/`",
        ),
        (
            "a device out of /dev",
            "devices: [/dev/../etc]",
            (2, 11),
            "without `.`, `..`",
        ),
        (
            "too many wildcards",
            "devices: [\"/dev/*****\"]",
            (2, 11),
            "too many",
        ),
        (
            "an access",
            "devices: [{path: /dev/x, access: rx}]",
            (2, 34),
            "is not an access",
        ),
        (
            "an access twice",
            "devices: [{path: /dev/x, access: rr}]",
            (2, 34),
            "is not an access",
        ),
        (
            "path and type",
            "devices: [{path: /dev/x, type: char}]",
            (2, 11),
            "exactly one way",
        ),
        (
            "a network mode",
            "network: {mode: hots}",
            (2, 17),
            "did you mean `host`?",
        ),
        ("a port", "network: {bind: [65536]}", (2, 18), "is not a TCP port"),
        (
            "a range backwards",
            "network: {bind: [90-80]}",
            (2, 18),
            "is not a TCP port",
        ),
        (
            "too many ports",
            "network: {bind: [1-60000]}",
            (2, 17),
            "more than 1024",
        ),
        (
            "enforce",
            "files: {enforce: besteffort}",
            (2, 18),
            "did you mean `best_effort`?",
        ),
        (
            "too little memory",
            "limits: {memory: 1M}",
            (2, 18),
            "the least is 6MiB",
        ),
        ("a user", "process: {user: \"../x\"}", (2, 17), "is not a user"),
        (
            "a mount with two sources",
            "mounts: [{bind: /a, volume: b, target: /c}]",
            (2, 10),
            "exactly one source",
        ),
        (
            "a mount over the root",
            "mounts: [{volume: b, target: /}]",
            (2, 10),
            "a mount over the root",
        ),
        (
            "a volume's name",
            "mounts: [{volume: ../b, target: /c}]",
            (2, 19),
            "is not a policy's name",
        ),
        (
            "a parent's name",
            "extends: [../../etc/passwd]",
            (2, 11),
            "is not a policy's name",
        ),
        (
            "an errno that looks like success",
            "system_calls: {deny: [{name: read, errno: 0}]}",
            (2, 43),
            "unknown error number",
        ),
        (
            "an errno of an allowance",
            "system_calls: {allow: [{name: read, errno: EPERM}]}",
            (2, 44),
            "move the rule to `deny`",
        ),
        (
            "a constant",
            "system_calls: {allow: [{name: socket, when: {argument: 0, value: AF_INETT}}]}",
            (2, 66),
            "did you mean `AF_INET`?",
        ),
        (
            "an argument",
            "system_calls: {allow: [{name: socket, when: {argument: 6, value: 1}}]}",
            (2, 56),
            "at most 5",
        ),
        (
            "a mask without masked_eq",
            "system_calls: {allow: [{name: socket, when: {argument: 0, value: 1, mask: 1}}]}",
            (2, 75),
            "add `is: masked_eq`",
        ),
        (
            "a value outside of its mask",
            "system_calls: {allow: [{name: socket, when: {argument: 0, is: masked_eq, mask: 1, value: 2}}]}",
            (2, 45),
            "never holds",
        ),
        (
            "a denial of unclear width",
            "system_calls: {deny: [{name: read, when: {argument: 2, is: gt, value: 9}}]}",
            (2, 42),
            "add `width: 32`",
        ),
        (
            "with and without conditions",
            "system_calls: {allow: [socket, {name: socket, when: {argument: 0, value: 1}}]}",
            (2, 24),
            "both with and without conditions",
        ),
        (
            "two subjects",
            "system_calls: {allow: [{name: read, group: \"@clock\"}]}",
            (2, 24),
            "exactly one way",
        ),
        (
            "a mapping instead of a list",
            "devices: {path: /dev/x}",
            (2, 10),
            "a list of devices is expected",
        ),
        (
            "text instead of a mapping",
            "process: strict",
            (2, 10),
            "a single value where `process` is expected",
        ),
        (
            "an unknown word for a section",
            "system_calls: uncnfined",
            (2, 15),
            "did you mean `unconfined`?",
        ),
    ]);
    let future = errors("kakoi: 2\n");
    assert!(
        future.to_string().contains("this Kakoi reads version 1"),
        "{future}"
    );
    let missing = errors("name: a\n");
    assert!(missing.to_string().contains("without `kakoi`"), "{missing}");
    assert!(errors("").to_string().contains("the document is empty"));
    assert!(
        errors("- a\n")
            .to_string()
            .contains("a list where a policy is expected")
    );
}

#[test]
fn hostile_documents_are_cut_off() {
    let deep = format!("kakoi: 1\nname: {}{}\n", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(errors(&deep).list().len(), 1);
    let deep_maps = format!("kakoi: 1\nfiles: {}\n", "{a: ".repeat(200));
    errors(&deep_maps);
    let big = format!("kakoi: 1\n# {}\n", "x".repeat(DOCUMENT_BYTES_MAX));
    assert!(errors(&big).to_string().contains("at most 262144 are read"));
    let many = format!("kakoi: 1\ncapabilities: [{}]\n", "CHOWN, ".repeat(5000));
    assert!(errors(&many).to_string().contains("more than 4096 entries"));
    let long = format!("kakoi: 1\nname: {}\n", "x".repeat(5000));
    assert!(errors(&long).to_string().contains("more than 4096 characters"));
    let noisy = format!("kakoi: 1\ncapabilities: [{}]\n", "X, ".repeat(2000));
    assert_eq!(
        errors(&noisy).list().len(),
        kakoi_policy::diagnostics::DIAGNOSTICS_MAX
    );
    let lol =
        "kakoi: 1\nname: a\ncapabilities: &a [CHOWN]\ndevices: &b [*a, *a, *a, *a]\nmounts: [*b, *b, *b]\n";
    errors(lol);
    // What takes long per entry is not done for entries that nobody will read about.
    let misspelt = "process_vm_reedv_and_something_long_enough, ".repeat(4000);
    let slow = format!("kakoi: 1\nsystem_calls: {{allow: [{misspelt}]}}\n");
    assert_eq!(
        errors(&slow).list().len(),
        kakoi_policy::diagnostics::DIAGNOSTICS_MAX
    );
    let plain = "read, ".repeat(4000);
    let pairs = "{name: read, when: {argument: 0, value: 1}}, ".repeat(2000);
    let contradictory = format!("kakoi: 1\nsystem_calls: {{allow: [{{names: [{plain}]}}, {pairs}]}}\n");
    assert!(
        errors(&contradictory)
            .to_string()
            .contains("both with and without")
    );
    // A terminal must not be driven by what a message quotes.
    let escape = errors("kakoi: 1\n\"\\e[31mred\": 1\n");
    assert!(!escape.to_string().contains('\u{1b}'), "{escape}");
}

/// A small generator of pseudo-random numbers: the same documents on every run, so that a failure can be looked into.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % sides
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    let seeds = [
        include_str!("../../profiles/strict.yaml"),
        include_str!("../../profiles/docker-default.yaml"),
        include_str!("../../examples/modbus-gateway.yaml"),
        include_str!("../../profiles/ceiling/built-in.yaml"),
    ];
    let pieces = [
        "&a", "*a", "<<: ", "!!int ", "- ", ": ", "{", "}", "[", "]", "\"", "'", "|", ">", "#", "\n", "\t",
        "~", "%", "\u{feff}", "\u{202e}", "日本", "\0", "---\n", "? ", "0x", "-", "@", "`",
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut taken) = (0, 0);
    for round in 0..600 {
        let seed: Vec<char> = seeds[round % seeds.len()].chars().collect();
        let from = dice.roll(seed.len());
        let mut text: String = seed[from..seed.len().min(from + 1 + dice.roll(1200))]
            .iter()
            .collect();
        for _ in 0..dice.roll(6) {
            let at = text
                .char_indices()
                .nth(dice.roll(text.chars().count().max(1)))
                .map_or(0, |(at, _)| at);
            text.insert_str(at, pieces[dice.roll(pieces.len())]);
        }
        let text = format!("kakoi: 1\n{text}");
        match (parse("fuzz.yaml", &text), Ceiling::parse("fuzz.yaml", &text)) {
            (Err(errors), Err(more)) => {
                assert!(!errors.to_string().is_empty() && !more.to_string().is_empty());
                refused += 1;
            }
            (Ok(policy), _) => {
                taken += 1;
                assert_eq!(policy.file, "fuzz.yaml");
            }
            (Err(_), Ok(_)) => taken += 1,
        }
    }
    assert!(refused > 100, "{refused} refused, {taken} taken");
}
