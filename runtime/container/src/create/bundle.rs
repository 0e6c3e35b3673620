//! What is decided and written before libcontainer is called.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use kakoi_policy::confinement::Confinement;
use kakoi_policy::kernel::CgroupMode;
use serde_json::{Value, json};

use super::{Bundle, CreateError, Options, Stdio, host_tree, trees};
use crate::cgroup::{Cgroup, Hierarchies};
use crate::hook::HookState;
use crate::preflight;
use crate::prepare::{self, Circumstances, Leftover, PrepareError};
use crate::stage::{STAGE_FILE, Stage};

/// All that building needs.
pub(super) struct Prepared<'a> {
    pub id: &'a str,
    pub state_dir: &'a Path,
    pub left: Leftover,
    pub state: HookState,
    pub cgroup: Cgroup,
    pub cgroup_path: String,
    /// The document's limits.
    pub resources: Value,
    pub confinement: &'a Confinement,
    pub stdio: Stdio,
    pub preserve_fds: u32,
    pub options: Options,
    /// Open for the hook process until the container is built.
    pub held: Vec<OwnedFd>,
    /// The first process's user and group as the host counts them.
    pub owner: (u32, u32),
}

pub(super) fn prepare(bundle: Bundle<'_>) -> Result<Prepared<'_>, CreateError> {
    let Bundle {
        id,
        state_dir,
        bundle,
        mut spec,
        secrets: _,
        confinement,
        stdio,
        preserve_fds,
        options,
    } = bundle;
    let state = state(id, bundle, &spec);
    let given = Circumstances {
        id,
        cgroup_v1: Hierarchies::of_host().map_err(CreateError::Cgroup)?.mode != CgroupMode::V2,
        confinement,
        capabilities: kakoi_confine::capabilities_before_apply(confinement),
        capability_last: kakoi_sys::capability::last().map_err(CreateError::Kernel)?,
    };
    let mut left = prepare::prepare(&mut spec, &given).map_err(CreateError::Prepare)?;
    let rootfs = rootfs(bundle, &spec)?;
    spec["root"]["path"] = json!(rootfs);
    spec["process"]["terminal"] = json!(matches!(stdio, Stdio::Console(_)));
    let cgroup_path = text(&spec["linux"]["cgroupsPath"]);
    let cgroup = Cgroup::at(&cgroup_path).map_err(CreateError::Cgroup)?;

    let late_cwd = look_at_root(&rootfs, &spec, &left)?;

    let lowest = 3_i32.saturating_add_unsigned(preserve_fds);
    let mut held = trees::idmapped(&mut left.mounts, &spec["linux"], lowest)?;
    if has_namespace(&spec, "user") {
        held.extend(trees::nodes(&mut left.devices, &spec["linux"], lowest)?);
    }
    let stage = Stage {
        rootfs: rootfs.clone(),
        cgroup: cgroup_path.clone(),
        cgroup_namespace: has_namespace(&spec, "cgroup"),
        mounts: std::mem::take(&mut left.mounts),
        devices: std::mem::take(&mut left.devices),
        cwd: late_cwd,
        prestart_hooks: left.hooks.prestart.clone(),
        runtime_hooks: left.hooks.create_runtime.clone(),
        container_hooks: left.hooks.create_container.clone(),
        state: state.clone(),
    };
    let mut owner = (confinement.identity.uid, confinement.identity.gid);
    if has_namespace(&spec, "user") {
        owner.0 = trees::outside(&spec["linux"]["uidMappings"], owner.0.into());
        owner.1 = trees::outside(&spec["linux"]["gidMappings"], owner.1.into());
        held.extend(trees::container_namespace(&mut spec["linux"])?);
    }
    held.extend(write_stage(state_dir, &mut spec, stage, lowest)?);
    lower_early(&mut spec, &mut left);
    host_tree::note(state_dir, &rootfs, &mut spec)?;
    write(&state_dir.join("bundle"), "config.json", &spec)?;
    Ok(Prepared {
        id,
        state_dir,
        left,
        state,
        cgroup,
        cgroup_path,
        resources: spec["linux"]["resources"].take(),
        confinement,
        stdio,
        preserve_fds,
        options,
        held,
        owner,
    })
}

/// Refuses a hostile root and makes the working directory; where that lies below a mount it is answered, for the stage to make.
fn look_at_root(rootfs: &Path, spec: &Value, left: &Leftover) -> Result<Option<String>, CreateError> {
    let mut mounted = paths(spec.get("mounts"), "destination");
    mounted.extend(left.mounts.iter().map(|mount| mount.destination.clone()));
    let root = preflight::check(rootfs, &mounted, &paths(spec["linux"].get("devices"), "path"))
        .map_err(CreateError::Preflight)?;
    let cwd = Path::new(&left.cwd);
    if mounted
        .iter()
        .any(|target| cwd.starts_with(target) && cwd != target)
    {
        return Ok(Some(left.cwd.clone()));
    }
    preflight::make_cwd(&root, &left.cwd).map_err(CreateError::Preflight)?;
    Ok(None)
}

/// Gives libcontainer the limits that only lower: it sets them before the identity changes, when no privilege is needed. What raises is the
/// parent's to do.
fn lower_early(spec: &mut Value, left: &mut Leftover) {
    let only_lowers = |limit: &Value| {
        let name = limit["type"].as_str().unwrap_or_default();
        let (Some(soft), Some(hard)) = (limit["soft"].as_u64(), limit["hard"].as_u64()) else {
            return false;
        };
        let own = kakoi_sys::limit::Resource::named(name).map(kakoi_sys::limit::own);
        matches!(own, Some(Ok((_, own))) if soft <= hard && hard <= own)
    };
    let (early, late) = std::mem::take(&mut left.rlimits)
        .into_iter()
        .partition::<Vec<_>, _>(only_lowers);
    left.rlimits = late;
    if !early.is_empty() {
        spec["process"]["rlimits"] = Value::Array(early);
    }
}

/// Has libcontainer run this program as a hook at the points where there is something to do. The hook inherits the list, which the answer keeps
/// open: in a user namespace it may not open a file of the state folder.
fn write_stage(
    state_dir: &Path,
    spec: &mut Value,
    mut stage: Stage,
    lowest: i32,
) -> Result<Option<OwnedFd>, CreateError> {
    // A hook that names no environment has ours, through the process in between.
    let env: Vec<String> = std::env::vars()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    // Only what lies below a mount of ours can be missing without a mount of libcontainer's being at fault; the folder is made there at need.
    let places = !stage.mounts.is_empty() || !stage.devices.is_empty() || stage.cwd.is_some();
    let (runtime, container) = (
        !(stage.prestart_hooks.is_empty() && stage.runtime_hooks.is_empty()),
        places || !stage.container_hooks.is_empty(),
    );
    if !runtime && !container {
        return Ok(None);
    }
    stage.state.status = "creating".into();
    write(state_dir, STAGE_FILE, &stage)?;
    let path = state_dir.join(STAGE_FILE);
    let list = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|source| CreateError::State { path, source })?;
    let list = trees::inheritable(list.into(), lowest).map_err(trees::failed(STAGE_FILE.to_owned()))?;
    let ours = |point: &str| {
        let args = ["kakoi-shim", "stage", point, &list.as_raw_fd().to_string()];
        json!([{"path": "/proc/self/exe", "args": args, "env": env}])
    };
    let mut hooks = json!({});
    if runtime {
        hooks["createRuntime"] = ours("runtime");
    }
    if container {
        hooks["createContainer"] = ours("container");
    }
    spec["hooks"] = hooks;
    Ok(Some(list))
}

pub(super) fn write(folder: &Path, file: &str, content: &impl serde::Serialize) -> Result<(), CreateError> {
    let path = folder.join(file);
    let failed = |source| CreateError::State {
        path: path.clone(),
        source,
    };
    match fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let text = serde_json::to_vec(content).map_err(|error| failed(error.into()))?;
    fs::write(&path, text).map_err(failed)
}

fn state(id: &str, bundle: &Path, spec: &Value) -> HookState {
    let annotations = spec.get("annotations").and_then(Value::as_object);
    let pairs = annotations.into_iter().flatten();
    HookState {
        oci_version: text(&spec["ociVersion"]),
        id: id.to_owned(),
        status: "creating".to_owned(),
        pid: None,
        bundle: bundle.to_owned(),
        annotations: pairs
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
    }
}

fn rootfs(bundle: &Path, spec: &Value) -> Result<PathBuf, CreateError> {
    let path = spec
        .get("root")
        .and_then(|root| root.get("path"))
        .and_then(Value::as_str)
        .filter(|path| !path.is_empty());
    let path = bundle.join(path.ok_or(CreateError::Prepare(PrepareError::Field { field: "root.path" }))?);
    fs::canonicalize(&path)
        .map_err(|source| CreateError::Preflight(preflight::PreflightError::Root { path, source }))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn paths(list: Option<&Value>, field: &str) -> Vec<PathBuf> {
    let list = list
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter()
        .filter_map(|entry| entry.get(field)?.as_str())
        .map(PathBuf::from)
        .collect()
}

pub(super) fn has_namespace(spec: &Value, kind: &str) -> bool {
    let list = spec["linux"]["namespaces"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter()
        .any(|entry| entry.get("type").and_then(Value::as_str) == Some(kind))
}
