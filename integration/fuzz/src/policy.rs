//! Policies and ceilings.
//!
//! What must hold: what is read can be written in its canonical text, which means the same; what the owner's ceiling let through, or trimmed, it
//! lets through again as it is; an error names a place and has an end.

use kakoi_policy::render::canonical;
use kakoi_policy::{Ceiling, Composed, Diagnostics, Requests, SHIPPED, ShippedOnly, bound, compose, parse};

/// Longest account of the errors of one document; they are for a person.
const ACCOUNT_BYTES_MAX: usize = 1 << 20;

/// Reads a policy, composes it with what it extends, and bounds it; or reads a ceiling. Tells whether it is either.
pub fn policy(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    match Ceiling::parse("ceiling.yaml", text) {
        Ok(_) => return true,
        Err(errors) => is_for_people(&errors),
    }
    let policy = match parse("app.yaml", text) {
        Ok(policy) => policy,
        Err(errors) => {
            is_for_people(&errors);
            return false;
        }
    };
    let composed = match compose(&policy, &ShippedOnly) {
        Ok(composed) => composed,
        Err(errors) => {
            is_for_people(&errors);
            return false;
        }
    };
    means_the_same(&composed);
    let asked = composed.request(&Requests::none());
    let built_in = Ceiling::built_in();
    let trims = Ceiling::built_in_text().replace("on_excess: refuse", "on_excess: trim");
    let trims = Ceiling::parse("trims.yaml", &trims).expect("the built-in ceiling but for one word");
    for ceiling in [&built_in, &trims] {
        let Ok(bounded) = bound(&asked, ceiling) else {
            continue;
        };
        let again = bound(&bounded, &built_in)
            .unwrap_or_else(|excess| panic!("bounded, and still too much: {excess}"));
        assert_eq!(canonical(&again), canonical(&bounded));
        assert_eq!(again.own_limits(), bounded.own_limits());
    }
    true
}

/// Policies to begin with.
pub fn policies() -> Vec<Vec<u8>> {
    let examples = [
        include_str!("../../../policies/examples/modbus-gateway.yaml"),
        include_str!("../../../policies/examples/mosquitto.yaml"),
        include_str!("../../../policies/examples/static-site.yaml"),
        include_str!("../../../policies/examples/telemetry.yaml"),
        Ceiling::built_in_text(),
    ];
    let shipped = SHIPPED.iter().map(|profile| profile.text);
    shipped
        .chain(examples)
        .map(|text| text.as_bytes().to_vec())
        .collect()
}

fn means_the_same(composed: &Composed) {
    let written = canonical(composed);
    let read = parse("app.yaml", &written).unwrap_or_else(|errors| panic!("{errors}\n{written}"));
    let again = compose(&read, &ShippedOnly).unwrap_or_else(|errors| panic!("{errors}\n{written}"));
    assert_eq!(canonical(&again), written);
}

fn is_for_people(errors: &Diagnostics) {
    let shown = errors.to_string();
    assert!(
        !shown.is_empty() && shown.len() < ACCOUNT_BYTES_MAX,
        "{} bytes",
        shown.len()
    );
    let is_plain = |c: char| !c.is_control() || c == '\n';
    assert!(shown.chars().all(is_plain), "{shown:?}");
}
