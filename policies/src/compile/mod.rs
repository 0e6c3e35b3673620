//! From a composed policy to a [`Confinement`] for one identity and one kernel.
//!
//! Owns the translation, and the decision what happens to rules the kernel cannot enforce: a required one stops the compilation with an error
//! that names the rule and the kernel fact, a best-effort one becomes a [`Loss`]. Pure: the same input gives the same output everywhere.

pub(crate) mod landlock;
pub(crate) mod plan;
pub(crate) mod rest;
mod seccomp;

pub(crate) use rest::{MASKED_PATHS, READ_ONLY_PATHS, STANDARD_DEVICES, capability_sets, limits, paths};

use crate::bpf::AssembleError;
use crate::compose::Composed;
use crate::confinement::{
    CONFINEMENT_FORMAT, Confinement, Identity, Loss, NetworkMode, PolicyIdentity, Reach, Seccomp,
};
use crate::diagnostics::Origin;
use crate::docker_profile::{self, ProfileError};
use crate::egress;
use crate::kernel::KernelFacts;
use crate::model::Enforce;

/// A policy cannot be enforced here.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The kernel lacks what a required rule needs.
    #[error(
        "rule `{says}` at {rule} is required, but {fact}; mark it `enforce: best_effort` to start without it"
    )]
    Unenforceable {
        /// Where the rule stands.
        rule: Origin,
        /// What it says.
        says: String,
        /// What the kernel lacks.
        fact: String,
    },
    /// No program may be executed, because the system call is denied.
    #[error(
        "policy `{policy}` does not allow the system call `execve`, so that no program can start; add `system_calls: {{allow: [\"@process\"]}}` or `extends: [strict]`"
    )]
    NoExecve {
        /// The policy's name.
        policy: String,
    },
    /// No path may be executed.
    #[error(
        "policy `{policy}` lets nothing be executed, so that no program can start; add `files: {{execute: [/]}}` or `extends: [strict]`"
    )]
    NothingExecutable {
        /// The policy's name.
        policy: String,
    },
    /// A Docker seccomp profile that was asked for cannot be used.
    #[error("use the seccomp profile given with --security-opt")]
    Profile {
        /// Why.
        #[source]
        source: ProfileError,
    },
    /// The filters could not be built.
    #[error("build the system call filters of policy `{policy}`")]
    Filters {
        /// The policy's name.
        policy: String,
        /// Why.
        #[source]
        source: AssembleError,
    },
}

fn refused(rule: &Origin, says: &str, fact: &str) -> CompileError {
    CompileError::Unenforceable {
        rule: rule.clone(),
        says: says.to_owned(),
        fact: fact.to_owned(),
    }
}

/// Compiles a policy for a process identity and a kernel.
///
/// # Errors
/// A required rule that this kernel cannot enforce, or rules that make no usable container.
pub fn compile(
    policy: &Composed,
    identity: &Identity,
    facts: &KernelFacts,
) -> Result<Confinement, CompileError> {
    let mut losses = policy.trimmed.clone();
    let plan = plan::plan(policy);
    let seccomp = narrowed(seccomp_of(policy, &plan, facts, &mut losses)?, policy, facts)?;
    let landlock = landlock::compile(policy, &plan, facts, &mut losses)?;
    Ok(Confinement {
        format: CONFINEMENT_FORMAT,
        arch: facts.arch,
        policy: PolicyIdentity {
            name: policy.name.clone(),
            sha256: policy.sha256(),
        },
        identity: identity.clone(),
        no_new_privileges: policy
            .rules
            .process
            .no_new_privileges
            .as_ref()
            .is_none_or(|set| set.value),
        capabilities: capability_sets(policy, identity, facts, &mut losses),
        seccomp,
        landlock,
        devices: rest::devices(policy),
        limits: limits(&policy.rules.limits),
        filesystem: rest::filesystem(policy),
        network: policy.network_mode(),
        reach: reach(policy)?,
        user_namespace: policy.user_namespace(),
        losses,
    })
}

/// What may be reached, where somebody filters packets: in the host's own network that is the owner's business.
fn reach(policy: &Composed) -> Result<Reach, CompileError> {
    let network = &policy.rules.network;
    if policy.network_mode() == NetworkMode::Host
        && let Some((_, _, origin)) = egress::bounds(network)
    {
        let fact =
            "the container shares the host's network, where no packets are told apart; use a bridge network";
        return Err(refused(&origin, "network.egress", fact));
    }
    Ok(egress::reach(network))
}

fn seccomp_of(
    policy: &Composed,
    plan: &plan::Plan,
    facts: &KernelFacts,
    losses: &mut Vec<Loss>,
) -> Result<Seccomp, CompileError> {
    let calls = &policy.rules.calls;
    if calls.unconfined.is_some() {
        return Ok(Seccomp::Unconfined);
    }
    if !facts.seccomp_filter {
        let fact = "this kernel has no seccomp filters";
        let rules = calls.allow.iter().chain(&calls.deny);
        // A policy without any rule denies everything, and means it.
        let required = rules.clone().find(|rule| rule.enforce == Enforce::Required);
        if let Some(rule) = required {
            return Err(refused(&rule.origin, "system_calls", fact));
        }
        if rules.count() == 0 {
            return Err(refused(&Origin::flag(&policy.name), "system_calls", fact));
        }
        losses.push(Loss {
            rule: "system_calls".to_owned(),
            fact: fact.to_owned(),
        });
        return Ok(Seccomp::Unconfined);
    }
    if plan.action("execve", &[0; 6]) != plan::Action::Allow {
        return Err(CompileError::NoExecve {
            policy: policy.name.clone(),
        });
    }
    seccomp::filters(plan, facts)
        .map(Seccomp::Filters)
        .map_err(|source| CompileError::Filters {
            policy: policy.name.clone(),
            source,
        })
}

/// Adds the filter of a Docker profile. It is loaded last, because it need not allow the loading of another.
fn narrowed(seccomp: Seccomp, policy: &Composed, facts: &KernelFacts) -> Result<Seccomp, CompileError> {
    let Some(text) = &policy.seccomp_profile else {
        return Ok(seccomp);
    };
    let held = policy.capabilities.keys().fold(0, |set, c| set | c.bit());
    let added =
        docker_profile::filters(text, held, facts).map_err(|source| CompileError::Profile { source })?;
    let mut filters = match seccomp {
        Seccomp::Unconfined => Vec::new(),
        Seccomp::Filters(filters) => filters,
    };
    filters.extend(added);
    Ok(Seccomp::Filters(filters))
}
