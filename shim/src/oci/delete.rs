//! `delete`.

use kakoi_container::cgroup::Cgroup;
use kakoi_container::{create, hook};

use super::args::Delete;
use super::state::{Record, Root, Status};
use super::{Failed, chain, list};

pub(super) fn delete(root: &Root, flags: &Delete) -> Result<(), Failed> {
    if flags.regex {
        for id in list::matching(root, &flags.id)? {
            one(root, &id, flags.force)?;
        }
        return Ok(());
    }
    one(root, &flags.id, flags.force)
}

fn one(root: &Root, id: &str, force: bool) -> Result<(), Failed> {
    let held = match root.lock(id) {
        Ok(held) => held,
        // With --force a container that is not there is as wanted.
        Err(_) if force && !root.folder(id)?.exists() => return Ok(()),
        Err(error) => return Err(error),
    };
    let record = match root.load(id) {
        Ok(record) => record,
        Err(_) if force => {
            // A creation that was killed before it wrote anything down, or a record that is broken.
            end_unrecorded(root, id)?;
            drop(held);
            create::remove(&root.folder(id)?).map_err(|error| Failed::of("remove the container", &error))?;
            return remove_folder(root, id);
        }
        Err(error) => return Err(error),
    };
    match record.status() {
        Status::Stopped => {}
        _ if force => kill(&record)?,
        status => {
            return Err(Failed::new(format!(
                "container {id} cannot be deleted: it is {}",
                status.word()
            )));
        }
    }
    take_away(root, &record)
}

/// Ends what has no record, by the document that was prepared for it; without that either, nothing was made.
fn end_unrecorded(root: &Root, id: &str) -> Result<(), Failed> {
    let Ok(text) = std::fs::read(root.folder(id)?.join("bundle/config.json")) else {
        return Ok(());
    };
    let Ok(spec) = serde_json::from_slice(&text) else {
        return Ok(());
    };
    let cgroup = Cgroup::at(&create::control_group(&spec, id))
        .map_err(|error| Failed::of("the container's control group", &error))?;
    cgroup
        .kill_all()
        .and_then(|()| cgroup.delete())
        .map_err(|error| Failed::of("end what has no record", &error))
}

/// Kills the first process, and with it every other in its pid namespace, then what is left in the control group.
fn kill(record: &Record) -> Result<(), Failed> {
    let cgroup = record.cgroup()?;
    if let Some(handle) = record.handle() {
        if cgroup.is_frozen().unwrap_or(false) {
            cgroup
                .thaw()
                .map_err(|error| Failed::of("resume the container", &error))?;
        }
        if let Err(error) = handle.signal(nix::libc::SIGKILL) {
            complain!("kakoi-oci: {}", chain(&error));
        }
    }
    cgroup
        .kill_all()
        .map_err(|error| Failed::of("kill the container", &error))
}

/// Removes everything of a container that has stopped, then runs its poststop hooks.
pub(super) fn take_away(root: &Root, record: &Record) -> Result<(), Failed> {
    let cgroup = record.cgroup()?;
    // A container without a pid namespace can leave processes behind.
    if cgroup.exists() {
        cgroup
            .kill_all()
            .map_err(|error| Failed::of("kill what the container left", &error))?;
        cgroup
            .delete()
            .map_err(|error| Failed::of("remove the control group", &error))?;
    }
    create::remove(&root.folder(&record.id)?).map_err(|error| Failed::of("remove the container", &error))?;
    remove_folder(root, &record.id)?;
    // Their failures are logged and nothing more (runtime.md, "Lifecycle", step 13).
    for error in hook::run_each(&record.hooks.poststop, &record.hook_state(Status::Stopped)) {
        complain!("kakoi-oci: warning: poststop {}", chain(&error));
    }
    Ok(())
}

fn remove_folder(root: &Root, id: &str) -> Result<(), Failed> {
    match std::fs::remove_dir_all(root.folder(id)?) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failed::of(&format!("remove the state of container {id}"), &error))
        }
        _ => Ok(()),
    }
}
