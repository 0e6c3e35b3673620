//! What a container mounts, made: volumes, missing sources of binds, places of secrets.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kakoi_api::container::MountPoint;
use kakoi_container::plan::{MountKind, MountPlan, RunPlan};
use kakoi_policy::confinement::{Confinement, MountSource};

use crate::engine::Engine;
use crate::host;
use crate::plan::mounts::{self, Asked, Source};
use crate::refusal::{Answer, Refusal};
use crate::secrets::give;

/// What was asked for, within what was left of it, and the volumes that the policy brings where nothing else is mounted.
fn with_policy_volumes(asked: Vec<Asked>, confinement: &Confinement) -> Vec<Asked> {
    let mut all = asked;
    if let Some(most) = confinement.limits.tmpfs_bytes {
        for mount in all.iter_mut().filter(|mount| mount.source == Source::Tmpfs) {
            mount.options = mounts::within_tmpfs(std::mem::take(&mut mount.options), most);
        }
    }
    for mount in &confinement.filesystem.mounts {
        if let MountSource::Volume(name) = &mount.source
            && !all.iter().any(|other| other.target == mount.target)
        {
            all.push(Asked {
                source: Source::Volume {
                    name: name.clone(),
                    subpath: String::new(),
                    anonymous: false,
                },
                target: mount.target.clone(),
                read_only: mount.read_only,
                options: vec![],
                copy_up: true,
                mode: String::new(),
            });
        }
    }
    all
}

/// Makes volumes and missing bind sources.
pub(super) async fn make(
    engine: &Arc<Engine>,
    plan: &RunPlan,
    asked: Vec<Asked>,
    made: &mut Vec<String>,
) -> Answer<(Vec<MountPlan>, Vec<MountPoint>, Vec<String>)> {
    let all = with_policy_volumes(asked, &plan.confinement);
    let (mut plans, mut points, mut anonymous_names) = (Vec::new(), Vec::new(), Vec::new());
    for mount in all {
        if let Source::Secret { number } = mount.source {
            plans.push(give::mount_plan(&plan.run_dir, number, mount));
            continue;
        }
        let mut point = MountPoint {
            destination: mount.target.clone(),
            mode: mount.mode.clone(),
            rw: !mount.read_only,
            ..MountPoint::default()
        };
        let kind = match &mount.source {
            Source::Bind { path, .. } => {
                host::make_folder_if_missing(path).map_err(|cause| {
                    Refusal::bad(format!(
                        "error while creating mount source path '{}': {cause}",
                        path.display()
                    ))
                })?;
                point.kind = "bind".into();
                point.source = path.display().to_string();
                point.propagation = "rprivate".into();
                MountKind::Bind(path.clone())
            }
            Source::Volume {
                name,
                subpath,
                anonymous,
            } => {
                let name = volume(engine, name, made).await?;
                if *anonymous {
                    anonymous_names.push(name.clone());
                }
                let data = engine.paths.volume_dir(&name).join("_data");
                point.kind = "volume".into();
                point.name = name;
                point.driver = "local".into();
                point.source = data.display().to_string();
                MountKind::Volume {
                    subpath: within(&data, subpath)?,
                    data,
                }
            }
            Source::Tmpfs | Source::Secret { .. } => {
                point.kind = "tmpfs".into();
                MountKind::Tmpfs
            }
        };
        points.push(point);
        plans.push(MountPlan {
            target: mount.target,
            copy_up: mount.copy_up && matches!(mount.source, Source::Volume { .. }),
            kind,
            read_only: mount.read_only,
            options: mount.options,
        });
    }
    Ok((plans, points, anonymous_names))
}

/// The name of a volume, which is made where it is not there, and then stands in `made`.
async fn volume(engine: &Arc<Engine>, name: &str, made: &mut Vec<String>) -> Answer<String> {
    let none = Default::default;
    let (volume, is_new) = engine.volumes.create(engine, name, none(), none(), None).await?;
    if is_new {
        made.push(volume.name.clone());
    }
    Ok(volume.name)
}

/// The real path of a folder within a volume, below the volume: it must be there and must not lead out by a link. Whether it still does so is
/// looked at anew by each start.
fn within(data: &Path, subpath: &str) -> Answer<PathBuf> {
    if subpath.is_empty() {
        return Ok(PathBuf::new());
    }
    let missing = |_| {
        Refusal::bad(format!(
            "cannot access path {subpath:?} in the volume: it does not exist"
        ))
    };
    let top = fs::canonicalize(data).map_err(missing)?;
    let real = fs::canonicalize(data.join(subpath)).map_err(missing)?;
    let below = real
        .strip_prefix(&top)
        .map_err(|_| Refusal::bad(format!("path {subpath:?} leads out of the volume")))?;
    Ok(below.to_owned())
}
