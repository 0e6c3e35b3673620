//! The programs: against seccompiler's own of the same rules, against plain comparison, and the goldens of the shipped profiles.
//!
//! `KAKOI_UPDATE_GOLDENS=1` writes the goldens anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kakoi_policy::confinement::Instruction;
use kakoi_policy::kernel::Arch;
use kakoi_policy::model::{Condition, Operator, Width};
use kakoi_policy::render::summary;
use kakoi_policy::{SHIPPED, bpf, compile, json_schema, system_call_names, system_call_number};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::given::{ALLOW, EPERM, answer, compiled, composed, kernel, shipped, user};

/// The same numbers on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    /// Values near the edges at which comparisons of halves go wrong.
    fn value(&mut self) -> u64 {
        let edges = [
            0,
            1,
            2,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_fffe,
            0xffff_ffff,
            0x1_0000_0000,
            0x1_0000_0001,
            u64::MAX - 1,
            u64::MAX,
        ];
        edges[usize::try_from(self.roll(11)).unwrap_or(0)]
    }
}

/// A condition: argument, operator's place in [`WORDS`], value, mask, width.
type Drawn = (u8, usize, u64, u64, Width);

const WORDS: [&str; 7] = ["eq", "ne", "lt", "le", "gt", "ge", "masked_eq"];

#[test]
fn conditions_mean_what_they_say_in_the_policy_in_the_program_and_in_seccompiler() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for _ in 0..60 {
        let mut text = String::from(
            "kakoi: 1\nfiles: {execute: [/]}\nsystem_calls:\n  allow:\n    - execve\n    - getpid\n",
        );
        let mut rules: Vec<Vec<Drawn>> = Vec::new();
        for _ in 0..=dice.roll(4) {
            let conditions: Vec<_> = (0..=dice.roll(3))
                .map(|_| {
                    let mask = dice.value();
                    let op = usize::try_from(dice.roll(7)).unwrap_or(0);
                    let value = if op == 6 {
                        dice.value() & mask
                    } else {
                        dice.value()
                    };
                    let width = if dice.roll(2) == 0 {
                        Width::Low32
                    } else {
                        Width::Full64
                    };
                    (u8::try_from(dice.roll(6)).unwrap_or(0), op, value, mask, width)
                })
                .collect();
            let list: Vec<String> = conditions
                .iter()
                .map(|(argument, op, value, mask, width)| {
                    let mask = if *op == 6 {
                        format!(", mask: {mask:#x}")
                    } else {
                        String::new()
                    };
                    let bits = if *width == Width::Low32 { 32 } else { 64 };
                    format!(
                        "{{argument: {argument}, is: {}, value: {value:#x}{mask}, width: {bits}}}",
                        WORDS[*op]
                    )
                })
                .collect();
            text.push_str(&format!("    - {{name: fcntl, when: [{}]}}\n", list.join(", ")));
            rules.push(conditions);
        }
        let ours = compiled(&composed(&text));
        let theirs = seccompilers(&rules);
        for _ in 0..200 {
            let arguments = [0; 6].map(|_: u64| dice.value());
            let plain = rules.iter().any(|rule| {
                rule.iter().all(|(argument, op, value, mask, width)| {
                    let operator = [
                        Operator::Eq,
                        Operator::Ne,
                        Operator::Lt,
                        Operator::Le,
                        Operator::Gt,
                        Operator::Ge,
                        Operator::MaskedEq(*mask),
                    ][*op];
                    Condition {
                        argument: *argument,
                        operator,
                        value: *value,
                        width: *width,
                    }
                    .holds(&arguments)
                })
            });
            let want = if plain { ALLOW } else { EPERM };
            let number = system_call_number(Arch::X86_64, "fcntl").expect("known");
            assert_eq!(answer(&ours, "fcntl", &arguments), want, "{text}\n{arguments:x?}");
            assert_eq!(
                bpf::evaluate(&theirs, 0xc000_003e, number, &arguments),
                Some(want),
                "{text}\n{arguments:x?}"
            );
            assert_eq!(answer(&ours, "getpid", &arguments), ALLOW);
            assert_eq!(answer(&ours, "dup", &arguments), EPERM);
        }
    }
}

fn seccompilers(rules: &[Vec<Drawn>]) -> Vec<Instruction> {
    let rules = rules.iter().map(|rule| {
        let conditions = rule.iter().map(|(argument, op, value, mask, width)| {
            let op = [
                SeccompCmpOp::Eq,
                SeccompCmpOp::Ne,
                SeccompCmpOp::Lt,
                SeccompCmpOp::Le,
                SeccompCmpOp::Gt,
                SeccompCmpOp::Ge,
                SeccompCmpOp::MaskedEq(*mask),
            ][*op]
                .clone();
            let width = if *width == Width::Low32 {
                SeccompCmpArgLen::Dword
            } else {
                SeccompCmpArgLen::Qword
            };
            SeccompCondition::new(*argument, width, op, *value).expect("a condition")
        });
        SeccompRule::new(conditions.collect()).expect("a rule")
    });
    let number = i64::from(system_call_number(Arch::X86_64, "fcntl").expect("known"));
    let calls = BTreeMap::from([(number, rules.collect())]);
    let filter = SeccompFilter::new(
        calls,
        SeccompAction::Errno(1),
        SeccompAction::Allow,
        TargetArch::x86_64,
    );
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a program");
    program
        .iter()
        .map(|i| Instruction(i.code, i.jt, i.jf, i.k))
        .collect()
}

#[test]
fn programs_only_jump_forward_and_always_return() {
    for profile in &SHIPPED {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let c = compile(&shipped(profile.name), &user(0), &kernel(arch))
                .unwrap_or_else(|error| panic!("{error}"));
            let kakoi_policy::confinement::Seccomp::Filters(filters) = &c.seccomp else {
                continue;
            };
            for filter in filters {
                let length = filter.program.len();
                for (at, Instruction(code, jt, jf, k)) in filter.program.iter().enumerate() {
                    match code & 7 {
                        5 if *code == 5 => {
                            assert!(at + 1 + usize::try_from(*k).unwrap_or(usize::MAX) < length)
                        }
                        5 => assert!(at + 1 + usize::from(*jt.max(jf)) < length),
                        _ => assert!(at + 1 < length || *code == 6),
                    }
                }
                assert!(
                    length <= 600,
                    "{} {arch:?} {}: {length}",
                    profile.name,
                    filter.purpose
                );
            }
            for name in system_call_names(arch) {
                answer(&c, name, &[0; 6]);
            }
        }
    }
}

fn golden(name: &str, text: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), name].iter().collect();
    if std::env::var_os("KAKOI_UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        kept == text,
        "{name} is not what the code makes; look at the difference after KAKOI_UPDATE_GOLDENS=1"
    );
}

#[test]
fn the_schema_is_the_committed_one() {
    let mut text = serde_json::to_string_pretty(&json_schema()).expect("plain data");
    text.push('\n');
    golden("schema/kakoi-policy-1.json", &text);
}

#[test]
fn the_reference_is_the_committed_one() {
    golden("REFERENCE.md", &kakoi_policy::reference());
}

#[test]
fn the_shipped_profiles_compile_to_the_committed_summaries() {
    for profile in &SHIPPED {
        let c = compiled(&shipped(profile.name));
        let mut text = format!("{}\n", summary(&c));
        for call in system_call_names(Arch::X86_64) {
            // The call as such: what it gets with no argument set, and whether arguments change that.
            let (zeros, ones) = (answer(&c, call, &[0; 6]), answer(&c, call, &[u64::MAX; 6]));
            let word = |ret: u32| match ret & 0xffff_0000 {
                0x7fff_0000 => "allow".to_owned(),
                0x0005_0000 => format!("errno {}", ret & 0xffff),
                other => format!("{other:#x}"),
            };
            let shown = if zeros == ones {
                word(zeros)
            } else {
                format!("{} or {}, by its arguments", word(zeros), word(ones))
            };
            text.push_str(&format!("{call:<28}{shown}\n"));
        }
        golden(&format!("goldens/{}.txt", profile.name), &text);
    }
}

/// A JSON Schema validator for the words that our schema uses.
fn fits(
    schema: &serde_json::Value,
    root: &serde_json::Value,
    value: &serde_json::Value,
) -> Result<(), String> {
    if let Some(name) = schema.get("$ref").and_then(|r| r.as_str()) {
        let target = root
            .pointer(name.trim_start_matches('#'))
            .ok_or("a dangling $ref")?;
        return fits(target, root, value);
    }
    if let Some(any) = schema.get("anyOf").and_then(|any| any.as_array()) {
        let tried: Vec<String> = any
            .iter()
            .filter_map(|one| fits(one, root, value).err())
            .collect();
        return if tried.len() < any.len() {
            Ok(())
        } else {
            Err(tried.join("; "))
        };
    }
    if let Some(words) = schema.get("enum").and_then(|words| words.as_array()) {
        return if words.contains(value) {
            Ok(())
        } else {
            Err(format!("{value} is none of the words"))
        };
    }
    if let Some(only) = schema.get("const") {
        return if only == value {
            Ok(())
        } else {
            Err(format!("{value} is not {only}"))
        };
    }
    let kind = match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "boolean",
        serde_json::Value::Number(number) if number.is_u64() => "integer",
        serde_json::Value::Number(_) => "number",
        serde_json::Value::String(_) => "string",
        serde_json::Value::Array(_) => "array",
        serde_json::Value::Object(_) => "object",
    };
    let allows = |t: &serde_json::Value| t == kind || (t == "number" && kind == "integer");
    match schema.get("type") {
        Some(serde_json::Value::Array(types)) if !types.iter().any(allows) => {
            return Err(format!("{value} is {kind}"));
        }
        Some(one @ serde_json::Value::String(_)) if !allows(one) => {
            return Err(format!("{value} is {kind}, not {one}"));
        }
        _ => {}
    }
    if let Some(items) = schema.get("items") {
        for item in value.as_array().into_iter().flatten() {
            fits(items, root, item)?;
        }
    }
    let properties = schema.get("properties").and_then(|p| p.as_object());
    for (key, item) in value.as_object().into_iter().flatten() {
        match properties.and_then(|p| p.get(key)) {
            Some(property) => fits(property, root, item).map_err(|error| format!("{key}: {error}"))?,
            None if schema.get("additionalProperties") == Some(&serde_json::Value::Bool(false)) => {
                return Err(format!("unknown field {key}"));
            }
            None => {}
        }
    }
    for needed in schema
        .get("required")
        .and_then(|r| r.as_array())
        .into_iter()
        .flatten()
    {
        if value.get(needed.as_str().unwrap_or_default()).is_none() {
            return Err(format!("without {needed}"));
        }
    }
    Ok(())
}

#[test]
fn the_schema_takes_what_the_parser_takes() {
    let schema = json_schema();
    let examples = [
        include_str!("../../examples/mosquitto.yaml"),
        include_str!("../../examples/static-site.yaml"),
        include_str!("../../examples/telemetry.yaml"),
        include_str!("../../examples/modbus-gateway.yaml"),
    ];
    for text in SHIPPED.iter().map(|profile| profile.text).chain(examples) {
        let value: serde_json::Value = serde_saphyr::from_str(text).expect("valid YAML");
        fits(&schema, &schema, &value).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
    for wrong in [
        "{kakoi: 2}",
        "{}",
        "{kakoi: 1, nmae: x}",
        "{kakoi: 1, network: {mode: hots}}",
        "{kakoi: 1, files: {read: [{pth: /}]}}",
        "{kakoi: 1, process: {read_only_root: \"yes\"}}",
    ] {
        let value: serde_json::Value = serde_saphyr::from_str(wrong).expect("valid YAML");
        assert!(fits(&schema, &schema, &value).is_err(), "{wrong}");
        assert!(kakoi_policy::parse("w.yaml", wrong).is_err(), "{wrong}");
    }
}
