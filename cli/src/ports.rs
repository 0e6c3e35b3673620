//! Published ports for people: `0.0.0.0:8080->80/tcp`.
//!
//! Owns the notation and the folding of ranges. Refuses to know where the list comes from. Pure.

use serde_json::Value;

use crate::listing::items;

/// An address and a port of the host, with brackets where the address has colons.
pub fn place(address: &str, port: &str) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// Ports that follow one another, inside and at the host alike.
struct Group<'l> {
    address: &'l str,
    kind: &'l str,
    /// First and last inside.
    inside: (u64, u64),
    /// The first at the host.
    public: Option<u64>,
}

impl Group<'_> {
    /// Whether the host's port bears another number.
    fn is_moved(&self) -> bool {
        self.public.is_some_and(|public| public != self.inside.0)
    }

    fn text(&self) -> String {
        let (first, last) = self.inside;
        let range = |first: u64| match last - self.inside.0 {
            0 => first.to_string(),
            more => format!("{first}-{}", first + more),
        };
        let inside = format!("{}/{}", range(first), self.kind);
        match self.public {
            Some(public) => format!("{}->{inside}", place(self.address, &range(public))),
            None => inside,
        }
    }
}

/// The ports of a row of the list of containers: exposed ones and those with the same number at the host first, as Docker has them.
pub fn folded(list: &Value) -> String {
    let mut ports: Vec<(u64, &str, Option<u64>, &str)> = items(list)
        .iter()
        .filter_map(|port| {
            Some((
                port["PrivatePort"].as_u64()?,
                port["IP"].as_str().unwrap_or_default(),
                port["PublicPort"].as_u64(),
                port["Type"].as_str().unwrap_or("tcp"),
            ))
        })
        .collect();
    ports.sort_unstable();
    let mut groups: Vec<Group> = Vec::new();
    for (inside, address, public, kind) in ports {
        let follows = |group: &&mut Group| {
            let step = inside - group.inside.0;
            group.address == address
                && group.kind == kind
                && inside == group.inside.1 + 1
                && public == group.public.map(|public| public + step)
        };
        match groups.iter_mut().find(follows) {
            Some(group) => group.inside.1 = inside,
            None => groups.push(Group {
                address,
                kind,
                inside: (inside, inside),
                public,
            }),
        }
    }
    groups.sort_by_key(Group::is_moved);
    let words: Vec<String> = groups.iter().map(Group::text).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(rows: &[(&str, u16, u16, &str)]) -> Value {
        let row = |(address, public, inside, kind): &(&str, u16, u16, &str)| match public {
            0 => json!({"PrivatePort": inside, "Type": kind}),
            public => json!({"IP": address, "PublicPort": public, "PrivatePort": inside, "Type": kind}),
        };
        Value::Array(rows.iter().map(row).collect())
    }

    #[test]
    fn ports_are_shown_as_docker_shows_them() {
        let check = |rows: &[(&str, u16, u16, &str)], expected: &str| {
            assert_eq!(folded(&list(rows)), expected);
        };
        check(&[], "");
        check(&[("", 0, 80, "tcp")], "80/tcp");
        check(
            &[("::", 8080, 80, "tcp"), ("0.0.0.0", 8080, 80, "tcp")],
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        );
        check(
            &[
                ("", 0, 80, "tcp"),
                ("", 0, 81, "tcp"),
                ("", 0, 82, "udp"),
                ("", 0, 84, "tcp"),
            ],
            "80-81/tcp, 82/udp, 84/tcp",
        );
        check(
            &[
                ("0.0.0.0", 82, 82, "tcp"),
                ("0.0.0.0", 80, 80, "tcp"),
                ("0.0.0.0", 81, 81, "tcp"),
                ("::", 80, 80, "tcp"),
                ("::", 81, 81, "tcp"),
                ("::", 82, 82, "tcp"),
            ],
            "0.0.0.0:80-82->80-82/tcp, [::]:80-82->80-82/tcp",
        );
        // Another number at the host comes last.
        check(
            &[
                ("0.0.0.0", 1080, 80, "tcp"),
                ("0.0.0.0", 1081, 81, "tcp"),
                ("", 0, 90, "tcp"),
            ],
            "90/tcp, 0.0.0.0:1080-1081->80-81/tcp",
        );
        // Two places of one port, and numbers that do not go on together.
        check(
            &[
                ("127.0.0.1", 1, 80, "tcp"),
                ("127.0.0.1", 7, 80, "tcp"),
                ("127.0.0.1", 8, 81, "tcp"),
            ],
            "127.0.0.1:1->80/tcp, 127.0.0.1:7-8->80-81/tcp",
        );
        assert_eq!(folded(&Value::Null), "");
        assert_eq!(folded(&json!([{"Type": "tcp"}])), "");
    }
}
