//! Each answer names the rule that decides, and its remedy works.

use kakoi_policy::explain::Verdict;
use kakoi_policy::{Question, explain};

use super::given::{composed, shipped};

fn call(name: &str, arguments: Option<[u64; 6]>) -> Question {
    Question::SystemCall {
        name: name.to_owned(),
        arguments,
    }
}

#[test]
fn answers_name_their_rule() {
    let strict = shipped("strict");
    for (question, verdict, says, rule) in [
        (
            call("read", None),
            Verdict::Allowed,
            "`@basic-io` is allowed",
            "<strict>:",
        ),
        (
            call("bpf", None),
            Verdict::Denied,
            "no rule allows it (it is in @bpf",
            "",
        ),
        (
            call("clone3", None),
            Verdict::Denied,
            "denied with ENOSYS",
            "<strict>:",
        ),
        (
            call("socket", None),
            Verdict::Conditional,
            "depends on its arguments",
            "<strict>:",
        ),
        (
            call("socket", Some([1, 1, 0, 0, 0, 0])),
            Verdict::Allowed,
            "`socket` is allowed",
            "<strict>:",
        ),
        (
            call("socket", Some([38, 5, 0, 0, 0, 0])),
            Verdict::Denied,
            "meet no allowing rule",
            "<strict>:",
        ),
        (call("raed", None), Verdict::Denied, "did you mean `read`?", ""),
        (
            Question::Read("/etc/passwd".to_owned()),
            Verdict::Allowed,
            "`files` grants read",
            "<strict>:",
        ),
        (
            Question::Write("/tmp/x".to_owned()),
            Verdict::Allowed,
            "`files` grants write",
            "<strict>:",
        ),
        (
            Question::Write("/tmpx".to_owned()),
            Verdict::Denied,
            "no entry of `files.write`",
            "",
        ),
        (
            Question::Write("/dev/null".to_owned()),
            Verdict::Allowed,
            "`devices` grants it",
            "<strict>:",
        ),
        (
            Question::Execute("/bin/sh".to_owned()),
            Verdict::Allowed,
            "`files` grants execute",
            "<strict>:",
        ),
        (
            Question::Bind(80),
            Verdict::Denied,
            "no entry of `network.bind`",
            "",
        ),
        (
            Question::Connect(443),
            Verdict::Denied,
            "no entry of `network.connect`",
            "",
        ),
        (
            Question::Capability("SYS_ADMIN".parse().expect("known")),
            Verdict::Denied,
            "no entry of `capabilities`",
            "",
        ),
        (
            Question::Capability("CHOWN".parse().expect("known")),
            Verdict::Allowed,
            "it is in `capabilities`",
            "<strict>:",
        ),
        (
            Question::Device("/dev/sda".to_owned()),
            Verdict::Denied,
            "no entry of `devices`",
            "",
        ),
        (
            Question::Device("/dev/pts/3".to_owned()),
            Verdict::Allowed,
            "`devices` grants it",
            "<strict>:",
        ),
    ] {
        let answer = explain(&strict, &question);
        assert_eq!(answer.verdict, verdict, "{answer}");
        assert!(answer.because.contains(says), "`{says}` in\n{answer}");
        let shown = answer.rule.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(
            shown.starts_with(rule) && shown.is_empty() == rule.is_empty(),
            "{answer}"
        );
    }
}

#[test]
fn a_remedy_that_is_followed_helps() {
    for question in [
        call("bpf", None),
        call("socket", Some([38, 5, 0, 0, 0, 0])),
        Question::Write("/var/lib/x y".to_owned()),
        Question::Bind(80),
        Question::Connect(443),
        Question::Capability("SYS_ADMIN".parse().expect("known")),
        Question::Device("/dev/ttyUSB0".to_owned()),
        Question::DeviceNumbers {
            kind: kakoi_policy::confinement::DeviceKind::Block,
            major: 8,
            minor: 0,
        },
    ] {
        let before = explain(&shipped("strict"), &question);
        let remedy = before
            .remedy
            .clone()
            .unwrap_or_else(|| panic!("no remedy: {before}"));
        let after = explain(
            &composed(&format!("kakoi: 1\nextends: [strict]\n{remedy}\n")),
            &question,
        );
        assert_eq!(
            (before.verdict, after.verdict),
            (Verdict::Denied, Verdict::Allowed),
            "{before}\n{after}"
        );
        assert!(
            after
                .rule
                .is_some_and(|rule| rule.to_string().starts_with("app.yaml:"))
        );
    }
}

#[test]
fn an_answer_reads_well() {
    let answer = explain(&shipped("strict"), &Question::Write("/var/lib/app".to_owned())).to_string();
    let want = "\
write /var/lib/app: denied
  because no entry of `files.write` covers it; landlock gives EACCES
  to allow it, add to the policy:
    files:
      write: [\"/var/lib/app\"]";
    assert_eq!(answer, want);
}
