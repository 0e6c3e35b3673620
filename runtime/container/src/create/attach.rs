//! What only the parent may set on the first process, between its making and its start.

use std::fs;

use kakoi_policy::confinement::Confinement;
use serde_json::Value;

use super::CreateError;
use crate::cgroup::Cgroup;

/// Sets resource limits and the OOM score, and on version 2 attaches the device program.
pub(super) fn finish(
    pid: i32,
    rlimits: &[Value],
    oom_score_adj: Option<i32>,
    _confinement: &Confinement,
    _cgroup: &Cgroup,
) -> Result<(), CreateError> {
    for rlimit in rlimits {
        limit(pid, rlimit)?;
    }
    if let Some(score) = oom_score_adj {
        fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).map_err(|source| {
            CreateError::Child {
                what: format!("OOM score {score}"),
                source,
            }
        })?;
    }
    Ok(())
}

fn limit(pid: i32, rlimit: &Value) -> Result<(), CreateError> {
    let name = rlimit.get("type").and_then(Value::as_str).unwrap_or_default();
    let failed = |source| CreateError::Child {
        what: format!("limit {name}"),
        source,
    };
    let number = |field: &str| rlimit.get(field).and_then(Value::as_u64);
    let malformed = || failed(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    let (Some(soft), Some(hard)) = (number("soft"), number("hard")) else {
        return Err(malformed());
    };
    let resource = kakoi_sys::limit::Resource::named(name).ok_or_else(malformed)?;
    kakoi_sys::limit::set(pid, resource, soft, hard).map_err(|error| failed(super::io(&error)))
}
