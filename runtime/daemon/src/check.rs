//! `system check`: the image store's damage and the records', as one report; at the start after an unclean stop, and when a person asks.
//!
//! Owns the marker of an unclean stop and the kinds of damage between records and folders. Refuses to look into images, which look at
//! themselves. Invariants: what a person must decide is named and not decided (a volume's data is never removed); at the start nothing that is
//! shown goes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kakoi_api::kakoi::{CheckFinding, LostImage, SystemCheck};
use kakoi_container::discard::remove_tree;
use kakoi_image::{CheckReport, Damage, Depth, Digest, Finding, Lost, Outcome, Repair, Use};

use crate::engine::Engine;
use crate::host::create_private_file;
use crate::life::remove;
use crate::refusal::{Answer, Refusal, chain};
use crate::serve::images::{blocking, uses};
use crate::shim::{self, ShimError, Word};
use crate::state::store::Damaged;
use crate::state::{Record, copies};
use crate::volumes::make_folders;

/// How long a shim may take to tell its state; one that takes longer lives all the same.
const SHIM_WAIT: Duration = Duration::from_secs(10);

/// Lies in the root while a daemon has it.
const MARKER: &str = "running";

/// Marks that a daemon has the root; tells whether the one before did not stop in order.
pub fn begin(root: &Path) -> io::Result<bool> {
    let path = root.join(MARKER);
    if path.exists() {
        return Ok(true);
    }
    create_private_file(&path)?.sync_all()?;
    File::open(root)?.sync_all()?;
    Ok(false)
}

/// Takes the mark away. What is not on the disk of that after a power cut costs a check.
pub fn end(root: &Path) {
    let path = root.join(MARKER);
    if let Err(cause) = fs::remove_file(&path) {
        tracing::warn!(%cause, "ignoring a mark that cannot be removed: the next start checks");
    }
}

/// The check of a start after an unclean stop: heals what can be healed, takes nothing away, and logs the rest.
pub async fn after_unclean_stop(engine: &Arc<Engine>) {
    match check(engine, Depth::Names, Repair::Heal).await {
        Ok(check) => {
            for finding in &check.findings {
                tracing::warn!(
                    damage = finding.damage,
                    place = finding.place,
                    outcome = finding.outcome,
                    "damage was found after an unclean stop"
                );
            }
            for lost in &check.lost {
                tracing::error!(
                    image = lost.names.join(", "),
                    remedy = lost.remedy,
                    "an image is not whole"
                );
            }
            // The next who asks is told of it too.
            let told = check
                .findings
                .into_iter()
                .filter(|finding| finding.outcome == "healed");
            engine.opening.lock().expect("no panic while locked").extend(told);
        }
        Err(refusal) => tracing::error!(error = chain(&refusal), "the check after an unclean stop failed"),
    }
}

/// Checks images and records.
pub async fn check(engine: &Arc<Engine>, depth: Depth, repair: Repair) -> Answer<SystemCheck> {
    let mut findings: Vec<CheckFinding> =
        std::mem::take(&mut *engine.opening.lock().expect("no panic while locked"));
    let images = blocking(engine, move |engine| {
        engine
            .images
            .check(depth, repair, &|id| held(engine, id), &|work| {
                // Making a container and the beginning of a start have this turn too.
                let _turn = engine.image_turn.blocking_write();
                work();
            })
            .map_err(crate::life::create::image_refusal)
    })
    .await?;
    let mut records = Records::default();
    {
        // Nobody makes a container meanwhile, whose folder would be there before its record.
        let _turn = engine.image_turn.write().await;
        records.look(engine);
    }
    if repair != Repair::No {
        records.repair(engine, repair).await;
    }
    let lost: Vec<LostImage> = images.lost.iter().map(lost_to_wire).collect();
    findings.extend(images.findings.iter().map(|finding| to_wire(finding, &images)));
    findings.extend(records.damage.into_iter().map(|damage| damage.into_wire()));
    let whole = lost.is_empty() && findings.iter().all(|finding| finding.outcome == "healed");
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    Ok(SystemCheck {
        findings,
        lost,
        images: count(images.images),
        blobs: count(images.blobs),
        layers: count(images.layers),
        containers: count(engine.containers.all().len()),
        volumes: count(engine.volumes.all().len()),
        hashed: depth == Depth::Content,
        whole,
    })
}

/// Who uses an image, where one that is being started, or whose shim still has its mounts, counts as running.
fn held(engine: &Engine, image: &Digest) -> Vec<Use> {
    let mut users = uses(engine, image);
    for user in &mut users {
        user.running |= engine.containers.find(&user.container).is_ok_and(|container| {
            let pulse = container.pulse();
            let pulse = pulse.borrow();
            pulse.up || pulse.shim
        });
    }
    users
}

fn to_wire(finding: &Finding, report: &CheckReport) -> CheckFinding {
    let anew = "it runs; before it is saved or pushed: kakoi pull it, or load the archive that it came from";
    let is_kept = matches!(finding.damage, Damage::RecipeMissing | Damage::RecipeUnreadable);
    let (outcome, remedy) = match &finding.outcome {
        Outcome::Kept => ("kept", anew.to_owned()),
        Outcome::Found if is_kept && !is_lost(finding, report) => ("found", anew.to_owned()),
        Outcome::Found if report.lost.is_empty() || !is_lost(finding, report) => {
            ("found", "kakoi system check --repair".to_owned())
        }
        Outcome::Found => ("found", String::new()),
        Outcome::Healed => ("healed", String::new()),
        Outcome::Lost => ("lost", String::new()),
        Outcome::InUse { container } => (
            "in-use",
            format!("stop container {container}, then kakoi system check --repair"),
        ),
        Outcome::Failed { reason } => ("failed", reason.clone()),
    };
    CheckFinding {
        damage: finding.damage.word().into(),
        place: format!("images/{}", finding.place),
        of: finding.images.clone(),
        outcome: outcome.into(),
        remedy,
    }
}

fn is_lost(finding: &Finding, report: &CheckReport) -> bool {
    let names: BTreeSet<&String> = report.lost.iter().flat_map(|lost| &lost.names).collect();
    finding.images.iter().any(|image| names.contains(image))
}

fn lost_to_wire(lost: &Lost) -> LostImage {
    let name = lost.names.first().cloned().unwrap_or_default();
    LostImage {
        id: lost.id.to_string(),
        names: lost.names.clone(),
        containers: lost.containers.clone(),
        remedy: if lost.is_pulled {
            format!("kakoi pull {name}")
        } else {
            format!("kakoi load the archive that {name} came from")
        },
    }
}

/// Damage to the records, as it is told for the whole database or one key.
pub fn opening(damage: &Damaged) -> CheckFinding {
    let (word, place) = match &damage.key {
        None => ("records-unreadable", "state.redb".to_owned()),
        Some(key) => ("record-unreadable", key.clone()),
    };
    CheckFinding {
        damage: word.into(),
        place,
        of: damage.key.iter().cloned().collect(),
        outcome: if damage.healed { "healed" } else { "lost" }.into(),
        remedy: String::new(),
    }
}

/// A kind of damage between records and folders.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A folder that is not root's alone.
    FolderMode(PathBuf),
    /// A container whose durable folder is gone.
    ContainerWithoutFolder(String),
    /// A container whose plan does not read.
    PlanUnreadable(String),
    /// A container whose image the store does not have.
    ContainerWithoutImage(String),
    /// A durable folder of a container without a record.
    FolderWithoutContainer(String),
    /// A volume whose folder is gone.
    VolumeWithoutFolder(String),
    /// A folder of a volume without a record.
    FolderWithoutVolume(String),
    /// A damaged database that was set aside, or a file that was being written.
    Leftover(PathBuf),
}

impl Kind {
    fn word(&self) -> &'static str {
        match self {
            Self::FolderMode(_) => "folder-mode",
            Self::ContainerWithoutFolder(_) => "container-without-folder",
            Self::PlanUnreadable(_) => "plan-unreadable",
            Self::ContainerWithoutImage(_) => "container-without-image",
            Self::FolderWithoutContainer(_) => "folder-without-container",
            Self::VolumeWithoutFolder(_) => "volume-without-folder",
            Self::FolderWithoutVolume(_) => "folder-without-volume",
            Self::Leftover(_) => "leftover",
        }
    }
}

#[derive(Clone, Debug)]
struct RecordDamage {
    kind: Kind,
    place: String,
    of: Vec<String>,
    outcome: &'static str,
    remedy: String,
}

impl RecordDamage {
    fn into_wire(self) -> CheckFinding {
        CheckFinding {
            damage: self.kind.word().into(),
            place: self.place,
            of: self.of,
            outcome: self.outcome.into(),
            remedy: self.remedy,
        }
    }
}

#[derive(Default)]
struct Records {
    damage: Vec<RecordDamage>,
}

impl Records {
    fn add(&mut self, kind: Kind, place: String, of: &[&str], remedy: &str) {
        self.damage.push(RecordDamage {
            kind,
            place,
            of: of.iter().map(|name| (*name).to_owned()).collect(),
            outcome: "found",
            remedy: remedy.to_owned(),
        });
    }

    /// Compares records with folders. Takes as long as there are containers and volumes.
    fn look(&mut self, engine: &Engine) {
        let root = &engine.paths.root;
        for name in ["", "containers", "volumes"] {
            let path = root.join(name);
            let is_private = fs::symlink_metadata(&path)
                .is_ok_and(|meta| meta.permissions().mode() & 0o7777 == 0o700 && meta.uid() == 0);
            if !is_private {
                let place = if name.is_empty() { "." } else { name };
                self.add(Kind::FolderMode(path), place.to_owned(), &[], "");
            }
        }
        let mut known = BTreeSet::new();
        for container in engine.containers.all() {
            known.insert(container.id.clone());
            let record = container.shared().record.clone();
            self.look_at_container(engine, &record);
        }
        for id in copies::folders(&root.join("containers")) {
            if !known.contains(&id) {
                let place = format!("containers/{id}");
                self.add(Kind::FolderWithoutContainer(id), place, &[], "");
            }
        }
        let volumes: BTreeSet<String> = engine
            .volumes
            .all()
            .into_iter()
            .map(|volume| volume.name)
            .collect();
        for name in &volumes {
            if !engine.paths.volume_dir(name).join("_data").is_dir() {
                let remedy = "its data is gone: put it back before its containers run, else they start with an empty one";
                let kind = Kind::VolumeWithoutFolder(name.clone());
                self.add(kind, format!("volumes/{name}/_data"), &[name], remedy);
            }
        }
        for name in copies::folders(&root.join("volumes")) {
            if !volumes.contains(&name) {
                let kind = Kind::FolderWithoutVolume(name.clone());
                self.add(kind, format!("volumes/{name}"), &[], "");
            }
        }
        for path in copies::set_aside(root) {
            let remedy = "the damaged records; keep a copy if somebody shall look at them";
            let place = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            self.add(Kind::Leftover(path), place, &[], remedy);
        }
    }

    fn look_at_container(&mut self, engine: &Engine, record: &Record) {
        let (id, name) = (&record.id, record.name.as_str());
        let state_dir = engine.paths.state_dir(id);
        if !state_dir.is_dir() {
            let remedy =
                format!("what it wrote is gone: kakoi system check --repair removes {name}; create it again");
            let kind = Kind::ContainerWithoutFolder(id.clone());
            return self.add(kind, format!("containers/{id}"), &[name], &remedy);
        }
        let is_plan = fs::read(state_dir.join("plan.json")).is_ok_and(|bytes| {
            serde_json::from_slice::<serde_json::Value>(&bytes).is_ok_and(|plan| plan.is_object())
        });
        if !is_plan {
            let remedy = format!("it cannot start: kakoi rm {name}, and create it again");
            let kind = Kind::PlanUnreadable(id.clone());
            self.add(kind, format!("containers/{id}/plan.json"), &[name], &remedy);
        }
        if engine.images.has(&record.image_id).is_ok_and(|has| !has) {
            let remedy = format!("kakoi pull {}", record.config.image);
            let kind = Kind::ContainerWithoutImage(id.clone());
            self.add(kind, record.image_id.clone(), &[name], &remedy);
        }
    }

    async fn repair(&mut self, engine: &Arc<Engine>, repair: Repair) {
        for damage in &mut self.damage {
            let healed = match &damage.kind {
                Kind::FolderMode(path) => kakoi_sys::path::own(path, 0o700)
                    .map_err(|cause| Refusal::failed(cause.to_string(), cause)),
                Kind::FolderWithoutVolume(name)
                    if repair == Repair::Full || copies::is_volume(&engine.paths.volume_dir(name)) =>
                {
                    adopt_volume(engine, name).await
                }
                Kind::VolumeWithoutFolder(name) if repair == Repair::Full => {
                    make_folders(&engine.paths, name)
                        .map_err(|cause| Refusal::failed(format!("volume {name} cannot be made"), cause))
                }
                Kind::FolderWithoutContainer(id) if repair == Repair::Full => {
                    if let Some(remedy) = lives(engine, id).await {
                        (damage.outcome, damage.remedy) = ("in-use", remedy);
                        continue;
                    }
                    remove_folder(engine, id).await
                }
                Kind::Leftover(path) if repair == Repair::Full => {
                    fs::remove_file(path).map_err(|cause| Refusal::failed(cause.to_string(), cause))
                }
                Kind::ContainerWithoutFolder(id) if repair == Repair::Full => {
                    remove_container(engine, id).await
                }
                _ => continue,
            };
            match healed {
                Ok(()) => damage.outcome = "healed",
                Err(refusal) => (damage.outcome, damage.remedy) = ("failed", refusal.message),
            }
        }
    }
}

/// What to do first where a shim still has the container whose record is gone: its folders are that container's, and without them nothing stops
/// it or confines it any more. A shim that does not answer but listens lives too.
pub async fn lives(engine: &Engine, id: &str) -> Option<String> {
    let asked = tokio::time::timeout(SHIM_WAIT, ask(&engine.paths.run_dir(id))).await;
    let who = match asked.unwrap_or(Some(None)) {
        None => return None,
        Some(Some(pid)) => format!("process {pid}"),
        Some(None) => "its shim, which does not answer".to_owned(),
    };
    Some(format!(
        "its container runs without a record: end {who}, then kakoi system check --repair"
    ))
}

/// `None` where no shim listens; else its container's first process, if it tells.
async fn ask(run_dir: &Path) -> Option<Option<i32>> {
    match shim::watch(run_dir).await {
        Ok(mut events) => match events.next().await {
            Ok(Some(Word::State(state))) => Some(Some(state.pid)),
            _ => Some(None),
        },
        Err(ShimError::Talk(cause))
            if matches!(
                cause.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            None
        }
        Err(_) => Some(None),
    }
}

/// Removes the folders of a container that none is, after what its dead shim left, and what stands in the records under its name but does not
/// read.
async fn remove_folder(engine: &Arc<Engine>, id: &str) -> Answer<()> {
    let (state_dir, run_dir) = (engine.paths.state_dir(id), engine.paths.run_dir(id));
    if run_dir.join("runtime").exists() {
        if !state_dir.join("plan.json").exists() {
            return Err(Refusal::broken(
                "a run left something behind and no plan tells what: restart the device, then kakoi system check --repair",
            ));
        }
        shim::clean(&engine.shim, &state_dir)
            .await
            .map_err(|cause| Refusal::failed("cleaning up after its dead shim failed", cause))?;
    }
    for path in [state_dir, run_dir] {
        remove_tree(&path).map_err(|cause| Refusal::failed(cause.to_string(), cause))?;
    }
    engine
        .store
        .forget(id)
        .await
        .map_err(|cause| Refusal::failed("the records cannot be written", cause))
}

/// A volume's folder without a record is somebody's data: it gets its record back.
async fn adopt_volume(engine: &Arc<Engine>, name: &str) -> Answer<()> {
    engine
        .volumes
        .adopt(engine, copies::volume(&engine.paths.root, name))
        .await
}

async fn remove_container(engine: &Arc<Engine>, id: &str) -> Answer<()> {
    let container = engine.containers.find(id)?;
    remove::remove(engine, &container, false, false).await
}
