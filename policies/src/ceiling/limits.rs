//! Limits: what a command line asks beside its policy, judged by that policy's own and by the owner's ceiling.
//!
//! Owns [`OwnLimits`], [`Bounded`] and [`bound_limits`], which judges a container that is already made. Invariant: a command line lowers a
//! policy's own limit and never raises it; what it leaves out is never an excess.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Authority, Ceiling, Excess, ExcessItem, Judge, OnExcess, loss, show};
use crate::compose::Composed;
use crate::confinement::{Limits, Loss, MountSource};
use crate::diagnostics::Origin;
use crate::model::{LIMITS, Limit, LimitSet, Sited};
use crate::request::{Amount, LimitRequests};

/// What a policy itself says of limits, in stored form: a container's limits may be changed long after its policy's file has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLimits(BTreeMap<String, OwnLimit>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnLimit {
    /// `None` is `unlimited`, as somebody wrote it.
    most: Option<u64>,
    rule: Origin,
}

impl OwnLimits {
    pub(crate) fn of(limits: &LimitSet) -> Self {
        let said = LIMITS.iter().filter_map(|(limit, name)| {
            let sited = limits.get(*limit)?;
            let own = OwnLimit {
                most: sited.value,
                rule: sited.origin.clone(),
            };
            Some(((*name).to_owned(), own))
        });
        Self(said.collect())
    }

    fn set(&self) -> LimitSet {
        let mut limits = LimitSet::none();
        for (limit, name) in LIMITS {
            if let Some(own) = self.0.get(name) {
                limits.set(limit, Sited::new(own.most, own.rule.clone()));
            }
        }
        limits
    }
}

/// Limits that a container may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded {
    /// What was asked for, or less where the ceiling trims.
    pub limits: LimitRequests,
    /// The most that policy and ceiling leave, also of what was not asked for.
    pub most: Limits,
    /// What the ceiling took away.
    pub trimmed: Vec<Loss>,
}

/// Judges new limits of a container by what its policy said when it was made, and by the ceiling of now.
///
/// # Errors
/// Everything that is too much.
pub fn bound_limits(
    policy: &str,
    own: &OwnLimits,
    asked: &LimitRequests,
    ceiling: &Ceiling,
) -> Result<Bounded, Excess> {
    let own = own.set();
    let mut wanted = wanted(asked);
    let mut judge = Judge::new(ceiling, above(&own, &wanted));
    judge.limits(&mut wanted);
    judge.shm(
        asked
            .shm
            .map(|shm| Sited::new(shm.value(), Origin::flag("--shm-size")))
            .as_ref(),
    );
    if judge.is_refusal() {
        return Err(judge.refusal(policy));
    }
    let amount = |limit| {
        wanted
            .get(limit)
            .map(|sited| sited.value.map_or(Amount::Unlimited, Amount::At))
    };
    let mut most = own;
    for (limit, _) in LIMITS {
        let owners = ceiling.limits.get(limit).filter(|owners| owners.value.is_some());
        if let Some(owners) = owners
            && most.value(limit).is_none_or(|value| Some(value) > owners.value)
        {
            most.set(limit, owners.clone());
        }
    }
    Ok(Bounded {
        limits: LimitRequests {
            memory: amount(Limit::Memory),
            swap: amount(Limit::Swap),
            cpu_millis: amount(Limit::Cpu),
            pids: amount(Limit::Pids),
            open_files: amount(Limit::Files),
            shm: asked.shm,
        },
        most: crate::compile::limits(&most),
        trimmed: judge.items.into_iter().map(loss).collect(),
    })
}

/// A command line's limits as a set of its own.
pub(crate) fn wanted(asked: &LimitRequests) -> LimitSet {
    let mut limits = LimitSet::none();
    for (limit, amount, flag) in [
        (Limit::Memory, asked.memory, "--memory"),
        (Limit::Swap, asked.swap, "--memory-swap"),
        (Limit::Cpu, asked.cpu_millis, "--cpus"),
        (Limit::Pids, asked.pids, "--pids-limit"),
        (Limit::Files, asked.open_files, "--ulimit nofile"),
    ] {
        if let Some(amount) = amount {
            limits.set(limit, Sited::new(amount.value(), Origin::flag(flag)));
        }
    }
    limits
}

/// Where a command line asks for more than a policy's own limit.
pub(crate) fn above(own: &LimitSet, wanted: &LimitSet) -> Vec<ExcessItem> {
    let mut items = Vec::new();
    for (limit, name) in LIMITS {
        if let Some(asked) = wanted.get(limit) {
            items.extend(above_one(own, limit, asked, &format!("limits.{name}")));
        }
    }
    items
}

/// The same for one thing that `limit` bounds.
pub(crate) fn above_one(
    own: &LimitSet,
    limit: Limit,
    asked: &Sited<Option<u64>>,
    says: &str,
) -> Option<ExcessItem> {
    let rule = own.get(limit)?;
    let most = rule.value?;
    if !exceeds(asked.value, most) {
        return None;
    }
    let (_, name) = LIMITS.iter().find(|(known, _)| *known == limit)?;
    Some(ExcessItem {
        asked: format!("{says} {}", shown(limit, asked.value)),
        asked_by: asked.origin.clone(),
        allowed: format!("at most {}", show(limit, most)),
        ceiling: rule.origin.clone(),
        remedy: format!(
            "ask for at most {}, or raise `limits.{name}` in the policy",
            show(limit, most)
        ),
        authority: Authority::Policy,
    })
}

fn exceeds(asked: Option<u64>, most: u64) -> bool {
    asked.is_none_or(|asked| asked > most)
}

fn shown(limit: Limit, value: Option<u64>) -> String {
    match value {
        None | Some(u64::MAX) => "unlimited".to_owned(),
        Some(value) => show(limit, value),
    }
}

impl Judge<'_> {
    /// Lowers what is too much, and notes it.
    pub(super) fn limits(&mut self, limits: &mut LimitSet) {
        for (limit, name) in LIMITS {
            if let Some(asked) = limits.get(limit).cloned()
                && let Some(most) = self.too_much(limit, &asked, &format!("limits.{name}"))
            {
                limits.set(limit, most);
            }
        }
    }

    /// An app that names no limit gets the owner's: that takes nothing away that it asked for.
    pub(super) fn fill(&self, limits: &mut LimitSet) {
        for (limit, _) in LIMITS {
            let owners = self.ceiling.limits.get(limit).filter(|max| max.value.is_some());
            if let (None, Some(max)) = (limits.get(limit), owners) {
                limits.set(limit, max.clone());
            }
        }
    }

    /// Memory that is written to as files: every tmpfs, and `/dev/shm`, which is one.
    pub(super) fn memory_files(&mut self, policy: &mut Composed) {
        let mut mounts = std::mem::take(&mut policy.rules.mounts);
        for mount in &mut mounts {
            if let MountSource::Tmpfs(Some(bytes)) = &mut mount.source {
                let asked = Sited::new(Some(*bytes), mount.origin.clone());
                let most = self.too_much(Limit::Tmpfs, &asked, &format!("tmpfs at {} of", mount.target));
                *bytes = most.and_then(|most| most.value).unwrap_or(*bytes);
            }
        }
        policy.rules.mounts = mounts;
        for mount in &policy.mounts_asked {
            if let MountSource::Tmpfs(Some(bytes)) = mount.value.source {
                let asked = Sited::new(Some(bytes), Origin::flag("--tmpfs"));
                let says = format!("tmpfs at {} of", mount.value.target);
                self.too_much(Limit::Tmpfs, &asked, &says);
            }
        }
        self.shm(policy.shm.clone().as_ref());
    }

    fn shm(&mut self, asked: Option<&Sited<Option<u64>>>) {
        if let Some(asked) = asked {
            self.too_much(Limit::Tmpfs, asked, "/dev/shm of");
        }
    }

    /// A group elsewhere escapes what the owner set for the containers' own, and could be another container's.
    pub(super) fn cgroup_parent(&mut self, policy: &Composed) {
        let Some(asked) = &policy.cgroup_parent else {
            return;
        };
        let parents = &self.ceiling.cgroup_parents;
        if parents
            .value
            .iter()
            .any(|allowed| crate::compile::landlock::covers(allowed, &asked.value))
        {
            return;
        }
        self.fatal = true;
        let list = parents.value.join(", ");
        self.excess(
            format!("control group below {}", asked.value),
            &asked.origin,
            if list.is_empty() {
                "the container's own".to_owned()
            } else {
                list
            },
            &parents.origin.clone(),
            "leave the flag out; or the owner adds the group to `cgroup_parents`".to_owned(),
        );
    }

    /// The owner's limit where `asked` is more than it.
    fn too_much(
        &mut self,
        limit: Limit,
        asked: &Sited<Option<u64>>,
        says: &str,
    ) -> Option<Sited<Option<u64>>> {
        let max = self.ceiling.limits.get(limit)?.clone();
        let most = max.value?;
        if !exceeds(asked.value, most) {
            return None;
        }
        self.excess(
            format!("{says} {}", shown(limit, asked.value)),
            &asked.origin,
            format!("at most {}", show(limit, most)),
            &max.origin,
            format!("ask for at most {}", show(limit, most)),
        );
        Some(max)
    }

    pub(super) fn is_refusal(&self) -> bool {
        let by_policy = |item: &ExcessItem| item.authority == Authority::Policy;
        let refuses = self.ceiling.on_excess == OnExcess::Refuse || self.fatal;
        self.items.iter().any(by_policy) || (refuses && !self.items.is_empty())
    }
}
