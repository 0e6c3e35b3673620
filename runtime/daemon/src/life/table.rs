//! All containers, by id and by name.
//!
//! Invariant: a name belongs to one container; it is reserved before a container is made and given back when it is not.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use super::container::Container;
use crate::names;
use crate::refusal::{Answer, Refusal};

/// Containers one daemon takes: far more than a device runs, few enough to be kept in memory.
const CONTAINERS_MAX: usize = 4096;
/// Attempts at a made-up name.
const NAME_ATTEMPTS: u32 = 12;

#[derive(Debug, Default)]
struct Rows {
    by_id: BTreeMap<String, Arc<Container>>,
    names: HashMap<String, String>,
}

/// All containers.
#[derive(Debug, Default)]
pub struct Table(Mutex<Rows>);

impl Table {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().expect("no panic while locked")
    }

    /// Reserves `wanted`, or a made-up name where it is empty, for the container `id`.
    pub fn reserve(&self, wanted: &str, id: &str) -> Answer<String> {
        let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
        let mut rows = self.rows();
        if rows.names.len() >= CONTAINERS_MAX {
            return Err(Refusal::unavailable(format!(
                "there are {CONTAINERS_MAX} containers already; remove some first"
            )));
        }
        let name = if wanted.is_empty() {
            let mut attempt = 0;
            loop {
                let name = names::invented(attempt)
                    .map_err(|cause| Refusal::failed("no random bytes for a name", cause))?;
                if !rows.names.contains_key(&name) {
                    break name;
                }
                attempt += 1;
                if attempt == NAME_ATTEMPTS {
                    return Err(Refusal::conflict(
                        "every name that was made up is taken; give one with --name",
                    ));
                }
            }
        } else {
            if !names::is_valid(wanted) {
                return Err(Refusal::bad(format!(
                    "Invalid container name ({wanted}), only {} are allowed",
                    names::RULE
                )));
            }
            if let Some(owner) = rows.names.get(wanted) {
                return Err(taken(wanted, owner));
            }
            wanted.to_owned()
        };
        rows.names.insert(name.clone(), id.to_owned());
        Ok(name)
    }

    /// Gives a name back.
    pub fn release(&self, name: &str) {
        self.rows().names.remove(name);
    }

    /// Adds a container whose name is reserved.
    pub fn insert(&self, container: Arc<Container>) {
        let name = container.name();
        let mut rows = self.rows();
        rows.names.insert(name, container.id.clone());
        rows.by_id.insert(container.id.clone(), container);
    }

    /// Takes a container out, with its name.
    pub fn remove(&self, id: &str) {
        let mut rows = self.rows();
        rows.by_id.remove(id);
        rows.names.retain(|_, owner| owner != id);
    }

    /// All, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.rows().by_id.values().cloned().collect()
    }

    /// Finds by full id, exact name, or unambiguous beginning of an id, in this order.
    pub fn find(&self, wanted: &str) -> Answer<Arc<Container>> {
        let missing = || Refusal::missing(format!("No such container: {wanted}"));
        let key = wanted.strip_prefix('/').unwrap_or(wanted);
        let rows = self.rows();
        if let Some(found) = rows.by_id.get(key) {
            return Ok(found.clone());
        }
        if let Some(found) = rows.names.get(key).and_then(|id| rows.by_id.get(id)) {
            return Ok(found.clone());
        }
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let mut fitting = rows
            .by_id
            .range::<str, _>((Bound::Included(key), Bound::Unbounded))
            .take_while(|(id, _)| id.starts_with(key));
        match (fitting.next(), fitting.next()) {
            (Some((_, found)), None) => Ok(found.clone()),
            (Some(_), Some(_)) => Err(Refusal::bad(format!(
                "multiple IDs found with provided prefix: {wanted}"
            ))),
            _ => Err(missing()),
        }
    }
}

/// The name is taken, in Docker's words, which clients match.
fn taken(name: &str, owner: &str) -> Refusal {
    Refusal::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that \
         container to be able to reuse that name."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::container::Phase;

    fn table(rows: &[(&str, &str)]) -> Table {
        let table = Table::default();
        for (id, name) in rows {
            let mut record = crate::life::start::tests::record(id);
            record.name = (*name).into();
            table.insert(Arc::new(Container::new(record, Phase::Created)));
        }
        table
    }

    #[test]
    fn finds_by_id_name_and_beginning() {
        let table = table(&[
            ("aa11", "one"),
            ("aa22", "two"),
            ("bb33", "aa11x"),
            ("cc44", "bb"),
        ]);
        let find = |wanted| table.find(wanted).map(|found| found.id.clone());
        assert_eq!(find("aa11").expect("full id"), "aa11");
        assert_eq!(find("/two").expect("name"), "aa22");
        assert_eq!(find("bb").expect("a name before a beginning"), "cc44");
        assert_eq!(find("bb3").expect("beginning"), "bb33");
        assert_eq!(
            find("aa").expect_err("ambiguous").status,
            hyper::StatusCode::BAD_REQUEST
        );
        for wanted in ["", "zz", "dd", "one/"] {
            assert_eq!(
                find(wanted).expect_err("none").status,
                hyper::StatusCode::NOT_FOUND,
                "{wanted}"
            );
        }
    }

    #[test]
    fn a_name_belongs_to_one() {
        let table = table(&[("aa11", "one")]);
        let refusal = table.reserve("one", "bb22").expect_err("taken");
        assert!(
            refusal
                .message
                .contains("is already in use by container \"aa11\""),
            "{}",
            refusal.message
        );
        assert_eq!(table.reserve("/two", "bb22").expect("free"), "two");
        table.release("two");
        table.reserve("two", "cc33").expect("free again");
        table.reserve("-x", "cc33").expect_err("invalid");
        table.remove("aa11");
        table.reserve("one", "dd44").expect("free after removal");
    }
}
