//! What the owner demands: thresholds, times, annotations, releases, scopes, revocations; at the intake and at each start.

use super::*;

#[test]
fn a_threshold_counts_keys() {
    let fixture = Fixture::new();
    let both = fixture.trust("keys: [a, b], threshold: 2");
    let (of_a, of_b) = (fixture.classic(&fixture.a), fixture.bundle(&fixture.b));
    trusted(fixture.decide(&both, &[of_a.clone(), of_b.clone()]));
    refused(fixture.decide(&both, std::slice::from_ref(&of_a)), "1 of 2 keys");
    refused(
        fixture.decide(&both, &[of_a.clone(), of_a.clone()]),
        "1 of 2 keys",
    );
    refused(
        fixture.decide(&both, &[of_a.clone(), fixture.bundle(&fixture.a)]),
        "1 of 2 keys",
    );
    // One key under three names is one key; beside a second one such a scope may stand, but its names do not add up.
    let keys = [
        ("a", fixture.a.public(), ""),
        ("c", fixture.a.public(), ""),
        ("b", fixture.b.public(), ""),
    ];
    let twice = trust(&keys, "keys: [a, c, b], threshold: 2");
    refused(
        fixture.decide(&twice, &[of_a.clone(), fixture.classic(&fixture.a)]),
        "1 of 2 keys",
    );
    trusted(fixture.decide(&twice, &[of_a.clone(), of_b]));
    // Signatures are looked at up to a limit, and noise before it does not let anything in.
    let noise = vec![fixture.classic(&key()); SIGNATURES_MAX];
    refused(
        fixture.decide(&both, &[noise, vec![of_a]].concat()),
        "at most 64 are looked at",
    );
}

#[test]
fn keys_have_their_time() {
    let fixture = Fixture::new();
    let layers = [fixture.classic(&fixture.a)];
    let window = |fields: &str| {
        trust(
            &[("a", fixture.a.public(), fields), ("b", fixture.b.public(), "")],
            "keys: [a, b]",
        )
    };
    for (fields, why) in [
        ("    not_before: 2026-11-24T12:00:01Z\n", "is not valid before"),
        ("    not_after: 2026-11-24T12:00:00Z\n", "expired at"),
        ("    revoked: stolen\n", "is revoked: stolen"),
    ] {
        refused(fixture.decide(&window(fields), &layers), why);
    }
    trusted(fixture.decide(
        &window("    not_before: 2026-11-24T12:00:00Z\n    not_after: 2026-11-24T12:00:01Z\n"),
        &layers,
    ));
    // The same key under a name that has expired and one that has not.
    let keys = [
        ("old", fixture.a.public(), "    not_after: 2026-01-01T00:00:00Z\n"),
        ("new", fixture.a.public(), ""),
    ];
    let evidence = trusted(fixture.decide(&trust(&keys, "keys: [old, new]"), &layers));
    assert_eq!(evidence.findings[0].key.as_deref(), Some("new"));
}

#[test]
fn demanded_annotations_must_be_signed() {
    let fixture = Fixture::new();
    let trusting = fixture.trust("keys: [a], annotations: {env: production}");
    let annotations = |value: &str| BTreeMap::from([("env".to_owned(), value.to_owned())]);
    for (value, good) in [("production", true), ("test", false)] {
        let classic =
            sign_classic(&fixture.a, &fixture.repository, &image(), &annotations(value)).expect("signed");
        let bundle = sign_bundle(&fixture.a, &image(), &annotations(value)).expect("signed");
        for mut layer in [classic, bundle] {
            // What stands at the layer is not signed and counts for nothing.
            layer.annotations.insert("env".into(), "production".into());
            let verdict = fixture.decide(&trusting, &[layer]);
            if good {
                trusted(verdict);
            } else {
                refused(verdict, "without the annotation `env=production`");
            }
        }
    }
    refused(
        fixture.decide(&trusting, &[fixture.classic(&fixture.a)]),
        "without the annotation",
    );
}

#[test]
fn releases_do_not_go_back() {
    let fixture = Fixture::new();
    let trusting = fixture.trust("keys: [a, b], release: true");
    let at = |floors: &Floors, layers: &[Layer]| {
        let subject = subject(fixture.repository.as_str());
        decide(subject, layers.to_vec(), grounds(&trusting, floors))
    };
    let mut floors = Floors::none();
    let old = [fixture.release(&fixture.a, "1.4.0")];
    let evidence = trusted(at(&floors, &old));
    let release = evidence.release.expect("demanded");
    floors.commit(&release);
    trusted(at(&floors, &old));
    floors.commit(&Release {
        version: Version::parse("1.5").expect("good"),
        digest: Digest::of(b"newer"),
        ..release
    });
    refused(at(&floors, &old), "is a downgrade: 1.5 was committed");
    refused(
        at(&floors, &[fixture.release(&fixture.a, "1.5")]),
        "another image with the same version",
    );
    refused(
        at(&floors, &[fixture.classic(&fixture.a)]),
        "but no release document",
    );
    // The highest version that enough keys released counts: an image may be released again.
    let again = [
        fixture.release(&fixture.a, "1.4.0"),
        fixture.release(&fixture.a, "1.6"),
    ];
    let evidence = trusted(at(&floors, &again));
    assert_eq!(evidence.release.expect("demanded").version.to_string(), "1.6");
    // Two keys must release the same version.
    let both = fixture.trust("keys: [a, b], release: true, threshold: 2");
    let apart = [
        fixture.release(&fixture.a, "1.6"),
        fixture.release(&fixture.b, "1.7"),
    ];
    refused(fixture.decide(&both, &apart), "1 of 2 keys");
    trusted(fixture.decide(
        &both,
        &[
            fixture.release(&fixture.a, "1.6"),
            fixture.release(&fixture.b, "1.6"),
        ],
    ));
    // Another name's release is none of this one.
    let named = fixture.trust("keys: [a], release: true, release_name: other");
    refused(fixture.decide(&named, &old), "not as `other`");
}

#[test]
fn only_the_owner_lets_a_release_go_back_and_only_to_one_version() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.a.public(), fixture.b.public());
    let permitting = |downgrades: &str| {
        let text = trust_text(&[("a", a, ""), ("b", b, "")], "keys: [a, b], release: true");
        Trust::parse("trust.yaml", &format!("{text}{downgrades}")).expect("good")
    };
    let closed = permitting("");
    let layers = |version: &str| [fixture.release(&fixture.a, version)];
    let evidence = trusted(fixture.decide(&closed, &layers("1.4")));
    let mut floors = Floors::none();
    floors.commit(&Release {
        version: Version::parse("1.5").expect("good"),
        digest: Digest::of(b"newer"),
        ..evidence.release.clone().expect("demanded")
    });
    let committed = floors.clone();
    let name = fixture.repository.as_str();
    let again = |trust: &Trust| recheck(&evidence, grounds(trust, &floors));
    refused(
        again(&closed),
        &format!("to allow it all the same: kakoi trust allow-downgrade {name} 1.4"),
    );
    // 1.4.0 is the same version.
    let open = permitting(&format!("downgrades: {{{name}: 1.4.0}}\n"));
    let let_in = trusted(again(&open));
    assert_eq!(let_in.downgrade, Downgrade::Permitted);
    // What is not below its floor needs no permission, and is not said to have used it.
    let floorless = Floors::none();
    let level = trusted(recheck(&evidence, grounds(&open, &floorless)));
    assert_eq!(level.downgrade, Downgrade::Refused);
    // The permission is the owner's of now: what was let in by it does not outlive it.
    refused(recheck(&let_in, grounds(&closed, &floors)), "is a downgrade");
    for other in [
        format!("downgrades: {{{name}: 1.3}}\n"),
        format!("downgrades: {{{name}: 1.5}}\n"),
        format!("downgrades: {{{name}x: 1.4}}\n"),
    ] {
        refused(again(&permitting(&other)), "is a downgrade");
    }
    // It opens nothing else: not another image as the committed version, no signature of a stranger, no lower floor.
    let level = permitting(&format!("downgrades: {{{name}: 1.5}}\n"));
    let as_other =
        |trust: &Trust, layers: &[Layer]| decide(subject(name), layers.to_vec(), grounds(trust, &floors));
    refused(
        as_other(&level, &layers("1.5")),
        "another image with the same version",
    );
    let stranger = fixture.release(&key(), "1.4");
    refused(as_other(&open, &[stranger]), "no key of the scope");
    assert!(!floors.clone().commit(&let_in.release.expect("demanded")));
    assert_eq!(floors, committed);
}

#[test]
fn scopes_decide() {
    let modes = |text: &str| Trust::parse("trust.yaml", text).expect("good");
    let closed = Trust::nothing();
    refused(
        verdict(&closed, "docker.io/library/x", Vec::new()),
        "no scope of trust.yaml covers it; to allow it all the same: kakoi trust allow docker.io/library --mode audit",
    );
    let trust = modes(
        "version: 1\nscopes:\n  docker.io: {mode: audit}\n  docker.io/library: {mode: reject}\n  docker.io/library/good: {mode: audit}\n",
    );
    for (repository, mode) in [
        ("docker.io/acme/x", Mode::Audit),
        ("docker.io/library/x", Mode::Reject),
        ("docker.io/library/good", Mode::Audit),
        ("docker.io/library/good/x", Mode::Audit),
        ("docker.io/library/goody", Mode::Reject),
        ("docker.io/library-evil/x", Mode::Audit),
        ("ghcr.io/docker.io/library/good", Mode::Reject),
    ] {
        let name = Repository::parse(repository).expect(repository);
        assert_eq!(trust.mode(&name), mode, "{repository}");
        match verdict(&trust, repository, Vec::new()) {
            Verdict::Audited { complaint: None, .. } => assert_eq!(mode, Mode::Audit),
            Verdict::Refused(_) => assert_eq!(mode, Mode::Reject),
            other => panic!("{repository}: {other:?}"),
        }
    }
    refused(
        verdict(&trust, "docker.io/library/x", Vec::new()),
        "scope `docker.io/library` rejects it",
    );
    let open = modes("version: 1\ndefault: audit\n");
    assert!(matches!(
        verdict(&open, "docker.io/library/x", Vec::new()),
        Verdict::Audited {
            complaint: Some(Complaint::NoScope),
            ..
        }
    ));
    // An audited scope with keys says what would have been refused.
    let fixture = Fixture::new();
    let pem = fixture.a.public().to_pem().replace('\n', "\n      ");
    let audit = modes(&format!(
        "version: 1\nkeys:\n  a:\n    public_key: |\n      {pem}\nscopes:\n  127.0.0.1:5917: {{mode: audit, keys: [a]}}\n"
    ));
    let complains = |layers: &[Layer]| match fixture.decide(&audit, layers) {
        Verdict::Audited { complaint, .. } => complaint,
        other => panic!("{other:?}"),
    };
    assert_eq!(complains(&[]), Some(Complaint::Unsigned));
    assert_eq!(complains(&[fixture.classic(&fixture.a)]), None);
}

#[test]
fn revocation_works_offline_and_never_goes_back() {
    let fixture = Fixture::new();
    let root = key();
    let pem = |key: &PrivateKey| key.public().to_pem().replace('\n', "\n      ");
    let trust = Trust::parse(
        "trust.yaml",
        &format!(
            "version: 1\nkeys:\n  a:\n    public_key: |\n      {}\n  root:\n    public_key: |\n      {}\nrevocation: {{keys: [root]}}\nscopes:\n  127.0.0.1:5917: {{mode: require, keys: [a]}}\n",
            pem(&fixture.a),
            pem(&root)
        ),
    )
    .expect("good");
    let of_a = (fixture.a.public().fingerprint(), "laptop\nstolen".to_owned());
    let list = |version, keys: &[&PrivateKey], revoked: &[(Digest, String)]| {
        sign_revocations(version, revoked, keys).expect("signed")
    };
    let second = list(2, &[&root], std::slice::from_ref(&of_a));
    let taken = Revocations::verify(&second, &trust, None, now()).expect("signed by root");
    assert_eq!(taken.version(), 2);
    let layers = vec![fixture.classic(&fixture.a)];
    let evidence = trusted(fixture.decide(&trust, &layers));
    let floors = Floors::none();
    let mut offline = grounds(&trust, &floors);
    offline.revocations = Some(&taken);
    refused(
        decide(subject(fixture.repository.as_str()), layers, offline),
        "key `a` is revoked: laptopstolen",
    );
    refused(recheck(&evidence, offline), "is revoked");

    let again = |document: &[u8]| Revocations::verify(document, &trust, Some(&taken), now());
    again(&second).expect("the same list once more");
    again(&list(3, &[&root], &[])).expect("a newer one");
    let old = again(&list(1, &[&root], &[])).expect_err("an older one");
    assert!(matches!(
        old,
        RevocationError::Old {
            version: 1,
            current: 2
        }
    ));
    assert!(
        again(&list(2, &[&root], &[])).is_err(),
        "another list of the same version"
    );
    let unsigned = again(&list(4, &[&fixture.a], &[])).expect_err("not by root");
    assert!(matches!(
        unsigned,
        RevocationError::Threshold {
            signed: 0,
            threshold: 1
        }
    ));
    let nobody = Revocations::verify(&second, &Trust::nothing(), None, now()).expect_err("nobody may");
    assert!(matches!(nobody, RevocationError::NobodyMay));
    // A revoked root revokes nothing further.
    let of_root = (root.public().fingerprint(), String::new());
    let last = again(&list(5, &[&root], &[of_root])).expect("by root, itself");
    let after = list(6, &[&root], &[]);
    assert!(Revocations::verify(&after, &trust, Some(&last), now()).is_err());
    // A statement is no list, even by the right key.
    let bundle: Value = serde_json::from_slice(&fixture.bundle(&root).payload).expect("JSON");
    let envelope = bundle["dsseEnvelope"].to_string();
    assert!(matches!(again(envelope.as_bytes()), Err(RevocationError::Type)));
}

#[test]
fn evidence_is_judged_again_by_what_the_owner_says_now() {
    let fixture = Fixture::new();
    let fields = "    not_after: 2026-12-01T00:00:00Z\n";
    let keys = [("a", fixture.a.public(), fields), ("b", fixture.b.public(), "")];
    let before = trust(&keys, "keys: [a, b]");
    let evidence = trusted(fixture.decide(&before, &[fixture.classic(&fixture.a)]));
    let stored = serde_json::to_vec(&evidence).expect("plain data");
    let evidence: Evidence = serde_json::from_slice(&stored).expect("read back");
    let floors = Floors::none();
    // The clock of a gateway may stand at 1970, and the key may have expired since: neither stops an app that was let in.
    for time in ["1970-01-01T00:00:00Z", "2030-01-01T00:00:00Z"] {
        let mut later = grounds(&before, &floors);
        later.now = time.parse().expect("a time");
        trusted(recheck(&evidence, later));
    }
    // But the owner's mind may have changed.
    let without = trust(&keys, "keys: [b]");
    refused(
        recheck(&evidence, grounds(&without, &floors)),
        "no key of the scope made",
    );
    refused(
        recheck(&evidence, grounds(&Trust::nothing(), &floors)),
        "no scope",
    );
    let mut forged = evidence.clone();
    forged.subject.digests = vec![Digest::of(b"another image")];
    refused(
        recheck(&forged, grounds(&before, &floors)),
        "signed another image",
    );
}

#[test]
fn signatures_are_added_to_those_that_stand_there() {
    let theirs = vector!("p256.manifest.json").as_bytes();
    let fixture = Fixture::new();
    let ours = fixture.classic(&fixture.a);
    let artifact = classic_artifact(Some(theirs), std::slice::from_ref(&ours)).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&artifact.manifest).expect("JSON");
    let before: Value = serde_json::from_slice(theirs).expect("JSON");
    assert_eq!(manifest["layers"][0], before["layers"][0]);
    assert_eq!(manifest["layers"][1]["digest"], json!(Digest::of(&ours.payload)));
    assert_eq!(artifact.blobs.len(), 2);
    assert_eq!(manifest["config"]["digest"], json!(artifact.blobs[1].digest));
    assert!(classic_artifact(Some(b"{}"), &[ours]).is_err());
}
