//! From a request and an image to a plan: pure, apart from reading and writing `plan.json`.

pub mod build;
pub mod limits;
pub mod merge;
pub mod mounts;
pub mod peers;
pub mod requests;
pub mod user;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use kakoi_container::plan::{PLAN_FORMAT, RunPlan};

use crate::refusal::{Answer, Refusal};

/// Reads a container's plan.
pub fn read(state_dir: &Path) -> Answer<RunPlan> {
    let damaged = |cause: io::Error| {
        Refusal::failed("the container's plan cannot be read; remove the container", cause)
    };
    let bytes = fs::read(state_dir.join("plan.json")).map_err(damaged)?;
    let plan: RunPlan = serde_json::from_slice(&bytes)
        .map_err(|cause| damaged(io::Error::new(io::ErrorKind::InvalidData, cause)))?;
    if plan.format != PLAN_FORMAT {
        return Err(damaged(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("format {}", plan.format),
        )));
    }
    Ok(plan)
}

/// Writes a container's plan: aside, synced where it must outlive a power cut, moved into place.
pub fn write(state_dir: &Path, plan: &RunPlan, durable: bool) -> io::Result<()> {
    let bytes = serde_json::to_vec(plan).expect("a plan is plain data");
    let aside = state_dir.join("plan.json.new");
    // The environment is in it, and with it the app's secrets.
    let mut file = crate::host::create_private_file(&aside)?;
    file.write_all(&bytes)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&aside, state_dir.join("plan.json"))?;
    if durable {
        File::open(state_dir)?.sync_all()?;
    }
    Ok(())
}
