//! Reading trust.yaml: where an error is, and the example of its header.

use super::*;

#[test]
fn errors_in_trust_yaml_have_line_and_column() {
    let (a, b) = (key(), key());
    let pem = |key: &PrivateKey| key.public().to_pem().replace('\n', "\n      ");
    let keys = format!(
        "version: 1\nkeys:\n  a:\n    public_key: |\n      {}\n  a2:\n    public_key: |\n      {}\n  b:\n    public_key: |\n      {}\n",
        pem(&a),
        pem(&a),
        pem(&b)
    );
    let lines = keys.lines().count();
    for (text, line, column, message) in [
        ("", 1, 1, "an empty document"),
        ("a: [", 1, 4, "not valid YAML"),
        ("scopes: {}\n", 1, 1, "a trust.yaml without `version`"),
        ("version: 2\n", 1, 10, "`2` is not a version"),
        ("version: 1\nscope: {}\n", 2, 1, "unknown field `scope`"),
        ("version: 1\nversion: 1\n", 2, 1, "field `version` twice"),
        (
            "version: 1\ndefault: require\n",
            2,
            10,
            "`require` is not a default",
        ),
        ("version: 1\nscopes: &a {}\n", 2, 12, "an anchor"),
        ("version: 1\nscopes: !x {}\n", 2, 12, "a tag"),
        ("version: 1\n---\nversion: 1\n", 2, 1, "a second document"),
        (
            "version: 1\nscopes:\n  library: {mode: audit}\n",
            3,
            3,
            "does not begin with a registry",
        ),
        (
            "version: 1\nscopes:\n  docker.io/: {mode: audit}\n",
            3,
            3,
            "is not `REGISTRY/PATH`",
        ),
        (
            "version: 1\nscopes:\n  docker.io: {mode: adit}\n",
            3,
            21,
            "`adit` is not a mode",
        ),
        (
            "version: 1\nscopes:\n  docker.io: {mode: require}\n",
            3,
            14,
            "without `keys`",
        ),
        (
            "version: 1\nscopes:\n  docker.io:\n",
            3,
            3,
            "`docker.io` without a value",
        ),
        (
            "version: 1\nkeys:\n  a: {public_key: x}\n",
            3,
            19,
            "not a public key",
        ),
        (
            "version: 1\nkeys:\n  'a b': {public_key: x}\n",
            3,
            3,
            "no name for a key",
        ),
        ("version: 1\nrevocation: {keys: [x]}\n", 2, 21, "no key `x`"),
        (
            "version: 1\ndowngrades: {app: 1.x}\n",
            2,
            19,
            "`1.x` is not a version",
        ),
        (
            "version: 1\ndowngrades: {app: [1, 2]}\n",
            2,
            19,
            "a list where a version",
        ),
        (
            "version: 1\ndowngrades: {app: }\n",
            2,
            14,
            "`app` without a value",
        ),
        ("version: 1\ndowngrades: {'': 1}\n", 2, 14, "no name of a release"),
        ("version: 1\ndowngrades: 1.2\n", 2, 13, "a mapping from names"),
    ] {
        let errors = Trust::parse("trust.yaml", text).expect_err(text);
        let found = errors.list().iter().find(|error| error.message.contains(message));
        let found = found.unwrap_or_else(|| panic!("{errors}\nwhere {message:?} is expected"));
        assert_eq!((found.line, found.column), (line, column), "{errors}");
    }
    for (text, message) in [
        (
            "scopes:\n  docker.io: {mode: require, keys: [a, a2], threshold: 2}\n",
            "a threshold of 2, but 1 distinct keys",
        ),
        (
            "scopes:\n  docker.io: {mode: require, keys: [a, c]}\n",
            "no key `c`",
        ),
        (
            "scopes:\n  docker.io: {mode: require, keys: [a], threshold: 0}\n",
            "not a number from 1 on",
        ),
        (
            "scopes:\n  docker.io: {mode: require, keys: []}\n",
            "but 0 distinct keys",
        ),
        (
            "scopes:\n  docker.io: {mode: audit, release_name: x}\n",
            "`release_name` without `release: true`",
        ),
    ] {
        let errors = Trust::parse("trust.yaml", &format!("{keys}{text}")).expect_err(text);
        let found = &errors.list()[0];
        assert!(found.message.contains(message), "{errors}");
        assert!(found.line > lines, "{errors}");
    }
    let shown =
        Trust::parse("trust.yaml", "version: 1\nscopes:\n  docker.io: {mode: adit}\n").expect_err("a slip");
    assert_eq!(
        shown.to_string(),
        "error: `adit` is not a mode\n --> trust.yaml:3:21\n  |\n3 |   docker.io: {mode: adit}\n  |                     ^^^^ did you mean `audit`?\n  = help: expected one of `require`, `audit`, `reject`"
    );
}

#[test]
fn the_drawing_in_config_is_a_trust_yaml() {
    let text: String = include_str!("../config.rs")
        .lines()
        .skip_while(|line| *line != "//! ```yaml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//! ").to_owned() + "\n")
        .collect();
    let trust = Trust::parse("trust.yaml", &text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let acme = Repository::parse("ghcr.io/acme/app").expect("good");
    let (_, rule) = trust.rule(&acme).expect("covered");
    assert!(rule.release && rule.annotations["env"] == "production");
    let downgrades: Vec<_> = trust.downgrades().collect();
    assert_eq!(downgrades.len(), 1, "{downgrades:?}");
}
