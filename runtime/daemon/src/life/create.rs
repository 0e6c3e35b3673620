//! Making a container: everything that can be refused is refused before the first folder is made, and what fails after is taken back.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kakoi_api::container::{ContainerConfig, CreateAnswer, CreateBody, HostConfig};
use kakoi_api::kakoi::PolicyChoice;
use kakoi_api::secret::SecretUse;

use kakoi_container::discard::remove_tree;
use kakoi_container::plan::{RootfsDriver, RunPlan};
use kakoi_image::{Image, ResolveError, StoreError};
use kakoi_policy::confinement::{Confinement, MountSource, NetworkMode, UserNamespace};
use kakoi_policy::{Composed, OwnLimits};
use kakoi_trust::{BroughtPolicy, Repository};

use super::container::{Container, Phase};
use super::{health, identity, mounts as mounts_of};
use crate::clock;
use crate::engine::Engine;
use crate::names;
use crate::networks::{BRIDGE, ask, ports};
use crate::plan::build::{self, Decided};
use crate::plan::mounts::{self, Asked, Source};
use crate::plan::peers::{self, Peers};
use crate::plan::user::{self, User};
use crate::plan::{self, limits, merge, requests};
use crate::policy::Door;
use crate::refusal::{Answer, Refusal};
use crate::restart;
use crate::secrets::give;
use crate::serve::denials::KEPT;
use crate::signal;
use crate::state::record::RECORD_FORMAT;
use crate::state::{Life, Record};
use crate::trust;

/// Makes a container.
pub async fn create(engine: &Arc<Engine>, door: Door, name: &str, body: CreateBody) -> Answer<CreateAnswer> {
    create_of(engine, door, name, body, None).await
}

/// Makes a container of the image with this id, whatever its name leads to by now; it is judged under its name all the same.
pub async fn create_of(
    engine: &Arc<Engine>,
    door: Door,
    name: &str,
    mut body: CreateBody,
    image_id: Option<&str>,
) -> Answer<CreateAnswer> {
    check(&body)?;
    // Docker's clients may name a network that comes into being later; of a person at this device's own command it is a slip.
    if door == Door::Kakoi {
        ask::check_there(&engine.networks, &body)?;
    }
    let id = names::new_id().map_err(|cause| Refusal::failed("no random bytes for an id", cause))?;
    // No image may go between its being found and the record that says that it is used.
    let _image_turn = engine.image_turn.read().await;
    let image = find_image(engine, &body.config.image, image_id)?;
    let (trusted_as, policy) = trust::admit_image(engine, &image).await?;
    take_brought_policy(engine, door, &mut body, policy);
    let name = engine.containers.reserve(name, &id)?;
    let mut undo = Undo {
        engine,
        id: &id,
        name: &name,
        slot: None,
        volumes: Vec::new(),
    };
    match make(engine, (&id, &name), body, (&image, trusted_as), &mut undo).await {
        Ok(answer) => Ok(answer),
        Err(refusal) => {
            undo.run().await;
            Err(refusal)
        }
    }
}

/// What is taken back when a container is not made.
struct Undo<'a> {
    engine: &'a Arc<Engine>,
    id: &'a str,
    name: &'a str,
    slot: Option<u32>,
    volumes: Vec<String>,
}

impl Undo<'_> {
    async fn run(self) {
        self.engine.containers.release(self.name);
        if let Some(slot) = self.slot {
            self.engine.ids.release(slot);
        }
        for folder in [
            self.engine.paths.state_dir(self.id),
            self.engine.paths.run_dir(self.id),
        ] {
            if let Err(cause) = remove_tree(&folder) {
                tracing::error!(path = %folder.display(), %cause, "a half-made container cannot be taken back; the next start does");
            }
        }
        for volume in self.volumes {
            if let Err(refusal) = self.engine.volumes.remove(self.engine, &volume).await {
                tracing::warn!(%volume, error = %refusal, "ignoring a volume that cannot be taken back");
            }
        }
    }
}

fn check(body: &CreateBody) -> Answer<()> {
    if body.config.image.is_empty() {
        return Err(Refusal::bad("no image specified"));
    }
    let policy = restart::Policy::parse(&body.host_config.restart_policy)?;
    if body.host_config.auto_remove && policy != restart::Policy::No {
        return Err(Refusal::bad(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    if let Some(check) = &body.config.healthcheck {
        health::check(check).map_err(Refusal::bad)?;
    }
    if !body.config.stop_signal.is_empty() {
        signal::parse(&body.config.stop_signal)?;
    }
    let swappiness = body.host_config.memory_swappiness;
    if let Some(value) = swappiness.filter(|value| !(-1..=100).contains(value)) {
        return Err(Refusal::bad(format!(
            "Invalid value: {value}, valid memory swappiness range is 0-100"
        )));
    }
    if body.config.stop_timeout.is_some_and(|seconds| seconds < -1) {
        return Err(Refusal::bad("stop timeout cannot be less than -1"));
    }
    let host = &body.host_config;
    if host.no_hosts && !host.extra_hosts.is_empty() {
        return Err(Refusal::bad(
            "conflicting options: no hosts file and custom host-to-IP mapping",
        ));
    }
    ports::wanted(host, &body.config.exposed_ports)?;
    for (what, is_asked) in [
        ("storage options", !host.storage_opt.is_empty()),
        (
            "per-device block I/O rates and weights",
            !host.blkio_device_read_bps.is_empty()
                || !host.blkio_device_write_bps.is_empty()
                || !host.blkio_device_read_iops.is_empty()
                || !host.blkio_device_write_iops.is_empty()
                || !host.blkio_weight_device.is_empty(),
        ),
        (
            "real-time limits of processors",
            host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0,
        ),
        (
            "processors by count or percent",
            host.cpu_count != 0 || host.cpu_percent != 0,
        ),
        ("control groups by `Cgroup`", !host.cgroup.is_empty()),
    ] {
        if is_asked {
            return Err(Refusal::unsupported(format!("{what} are not supported yet")));
        }
    }
    check_words(host)
}

/// Words with one answer here, and the ways to write it.
fn check_words(host: &HostConfig) -> Answer<()> {
    for (what, asked, known) in [
        // The second is what clients call Docker's default.
        (
            "OCI runtime",
            &host.runtime,
            &["", "kakoi", "runc", "io.containerd.runc.v2"][..],
        ),
        ("isolation", &host.isolation, &["", "default"][..]),
    ] {
        if !known.contains(&asked.as_str()) {
            return Err(Refusal::bad(format!(
                "unknown {what} {asked:?}: there is only {:?}",
                known[1]
            )));
        }
    }
    Ok(())
}

/// Whoever names no policy gets that of the image, as if it had come with the request: the owner's ceiling bounds it like any other.
fn take_brought_policy(engine: &Engine, door: Door, body: &mut CreateBody, policy: Option<BroughtPolicy>) {
    let shelf = engine.shelf();
    if shelf.is_named(body) {
        return;
    }
    body.policy = Some(match policy {
        Some(policy) => PolicyChoice {
            name: policy.name,
            source: Some(policy.text),
        },
        None => PolicyChoice {
            name: shelf.default_for(door).to_owned(),
            source: None,
        },
    });
}

fn find_image(engine: &Engine, name: &str, id: Option<&str>) -> Answer<Image> {
    engine.search_images();
    let named = engine.images.resolve(name);
    let Some(id) = id else {
        return named.map_err(image_refusal);
    };
    if let Ok(image) = named
        && image.id.to_string() == id
    {
        return Ok(image);
    }
    let image = engine.images.resolve(id).map_err(image_refusal)?;
    Ok(Image {
        name: Some(name.to_owned()),
        ..image
    })
}

/// An image that cannot be had, as an answer.
pub fn image_refusal(error: StoreError) -> Refusal {
    match error {
        StoreError::Resolve(found @ ResolveError::NotFound { .. }) => Refusal::missing(found.to_string()),
        StoreError::Resolve(found) => Refusal::bad(found.to_string()),
        other => Refusal::failed(kakoi_image::client_message(&other), other),
    }
}

/// Judges a request as [`create_of`] does, and makes nothing.
pub async fn examine(
    engine: &Arc<Engine>,
    door: Door,
    mut body: CreateBody,
    image_id: Option<&str>,
) -> Answer<()> {
    check(&body)?;
    if door == Door::Kakoi {
        ask::check_there(&engine.networks, &body)?;
    }
    let image = find_image(engine, &body.config.image, image_id)?;
    let (_, policy) = trust::admit_image(engine, &image).await?;
    take_brought_policy(engine, door, &mut body, policy);
    settle(engine, &mut body, &image)?;
    Ok(())
}

/// All that is decided about a container before anything of it is made.
struct Settled {
    peers: Peers,
    config: ContainerConfig,
    args: Vec<String>,
    mounts: Vec<Asked>,
    secrets: Vec<SecretUse>,
    confinement: Confinement,
    user: User,
    own_limits: OwnLimits,
    networks: ask::Asked,
}

fn settle(engine: &Engine, body: &mut CreateBody, image: &Image) -> Answer<Settled> {
    let peers = Peers::find(engine, &body.config, &mut body.host_config)?;
    let config = merge::merge(&body.config, &image.document.config);
    let args = merge::arguments(&config)?;
    let secrets = give::settle(engine, &body.secrets)?;
    let mut mounts = settled_mounts(engine, &config, &body.host_config)?;
    for secret in give::mounts(&secrets) {
        mounts::add(&mut mounts, secret)?;
    }
    let (confinement, user, own_limits) = confine(engine, body, &config, image, &mounts, &peers)?;
    let networks = settle_networks(engine, body, &config, &confinement)?;
    Ok(Settled {
        peers,
        config,
        args,
        mounts,
        secrets,
        confinement,
        user,
        own_limits,
        networks,
    })
}

async fn make(
    engine: &Arc<Engine>,
    (id, name): (&str, &str),
    mut body: CreateBody,
    (image, trusted_as): (&Image, Repository),
    undo: &mut Undo<'_>,
) -> Answer<CreateAnswer> {
    let settled = settle(engine, &mut body, image)?;
    let (peers, config, args) = (settled.peers, settled.config, settled.args);
    let (confinement, networks) = (settled.confinement, settled.networks);
    let driver = driver(engine);
    let mut warnings = warnings(&body.host_config, &confinement, driver);
    warnings.extend(discard(&mut body.host_config));
    // The plan is built before anything is made, with the mounts still missing, so that whatever it refuses leaves nothing behind.
    let host = &body.host_config;
    let (state_dir, run_dir) = (engine.paths.state_dir(id), engine.paths.run_dir(id));
    let range_first = take_id_range(engine, &confinement, undo)?;
    let mut plan = build::build(Decided {
        id,
        name,
        config: &config,
        host,
        args: args.clone(),
        confinement,
        home: settled.user.home,
        layers: image.layers.clone(),
        driver,
        mounts: Vec::new(),
        range_first,
        state_dir: &state_dir,
        run_dir: &run_dir,
        settings: &engine.settings,
        peers: &peers,
    })?;
    limits::fill(&mut plan, engine.shelf().ceiling());
    let mut files = identity::files(&plan, &config, &body, &peers)?;
    files.extend(kept_policy(&body));
    files.retain(|(name, _)| *name != "hosts" || !host.no_hosts);
    let (planned, points, anonymous) =
        mounts_of::make(engine, &plan, settled.mounts, &mut undo.volumes).await?;
    plan.mounts = planned;
    give::plan(&settled.secrets, &mut plan);
    let record = Record {
        format: RECORD_FORMAT,
        id: id.to_owned(),
        name: name.to_owned(),
        created: clock::now(),
        image_id: image.id.to_string(),
        trusted_as: trusted_as.to_string(),
        config,
        host_config: body.host_config,
        networks,
        reach: plan.confinement.reach.clone(),
        args,
        mounts: points,
        secrets: settled.secrets,
        anonymous_volumes: anonymous,
        policy: plan.confinement.policy.clone(),
        limits: settled.own_limits,
        id_slot: undo.slot,
        life: Life::default(),
    };
    write_folders(&record, &plan, &files, &state_dir, &run_dir).map_err(|cause| {
        Refusal::failed(format!("the container's files cannot be written: {cause}"), cause)
    })?;
    keep(engine, record).await?;
    Ok(CreateAnswer {
        id: id.to_owned(),
        warnings,
    })
}

/// How layers become a root file system here.
fn driver(engine: &Engine) -> RootfsDriver {
    if engine.facts.overlayfs {
        RootfsDriver::Overlay
    } else {
        RootfsDriver::Copy
    }
}

/// The first host id of a range of the container's own, where it has a user namespace.
fn take_id_range(engine: &Engine, confinement: &Confinement, undo: &mut Undo<'_>) -> Answer<Option<u32>> {
    if confinement.user_namespace == UserNamespace::Host {
        return Ok(None);
    }
    let slot = engine.ids.take()?;
    undo.slot = Some(slot);
    Ok(Some(engine.ids.first_id(slot)))
}

/// What the person who creates the container should know.
fn warnings(host: &HostConfig, confinement: &Confinement, driver: RootfsDriver) -> Vec<String> {
    let losses = confinement.losses.iter();
    let mut warnings: Vec<String> = losses
        .map(|loss| format!("not enforced: {}: {}", loss.rule, loss.fact))
        .collect();
    if driver == RootfsDriver::Copy {
        warnings.push(
            "this kernel has no overlayfs: the image is copied for each container, which is slow and takes space".into(),
        );
    }
    if host.network_mode == "host" && (!host.port_bindings.is_empty() || host.publish_all_ports) {
        warnings.push("Published ports are discarded when using host network mode".into());
    }
    warnings
}

/// Takes out what version 2 control groups and kernels since 5.16 do not have, as dockerd does there: it bounds nothing, and is not kept as if it did.
fn discard(host: &mut HostConfig) -> Vec<String> {
    // Docker's client sends -1 where nobody said anything.
    let swappiness = host.memory_swappiness.take().filter(|value| *value != -1);
    let kernel_memory = host.kernel_memory.take().filter(|bytes| *bytes > 0);
    let words = [
        (
            swappiness.is_some(),
            "Memory swappiness is not a setting of this engine. Memory swappiness discarded.",
        ),
        (
            kernel_memory.is_some(),
            "Kernel memory is not a limit of its own any more. Limitation discarded.",
        ),
    ];
    let told = words.into_iter().filter(|(is_asked, _)| *is_asked);
    told.map(|(_, words)| words.to_owned()).collect()
}

/// Reads what is asked of networks, and writes down where the network comes from where the request left that to the policy.
fn settle_networks(
    engine: &Engine,
    body: &mut CreateBody,
    config: &ContainerConfig,
    confinement: &Confinement,
) -> Answer<ask::Asked> {
    let mode = &mut body.host_config.network_mode;
    if body.config.network_disabled {
        *mode = "none".into();
    }
    if matches!(mode.as_str(), "" | "default") {
        *mode = match confinement.network {
            NetworkMode::None => "none",
            NetworkMode::Host => "host",
            NetworkMode::Bridge => BRIDGE,
        }
        .into();
    }
    ask::settle(
        &engine.networks,
        &body.networking_config,
        &mut body.host_config,
        config,
    )
}

/// Records the container, last of all: from here on it exists.
async fn keep(engine: &Arc<Engine>, record: Record) -> Answer<()> {
    engine.store.put(&record).await.map_err(|cause| {
        Refusal::failed(
            format!(
                "the container cannot be recorded: {}",
                crate::refusal::chain(&cause)
            ),
            cause,
        )
    })?;
    let id = record.id.clone();
    let container = Arc::new(Container::new(record, Phase::Created));
    engine.containers.insert(container.clone());
    engine
        .events
        .tell("container", "create", &id, container.attributes());
    Ok(())
}

/// Composes, bounds and compiles the policy for who the process will be.
fn confine(
    engine: &Engine,
    body: &CreateBody,
    config: &ContainerConfig,
    image: &Image,
    asked: &[Asked],
    peers: &Peers,
) -> Answer<(Confinement, User, OwnLimits)> {
    let shelf = engine.shelf();
    let judged = asked
        .iter()
        .map(|mount| {
            let source = match &mount.source {
                Source::Bind { path, .. } => MountSource::Bind(path.display().to_string()),
                Source::Volume { name, .. } => MountSource::Volume(name.clone()),
                Source::Tmpfs => MountSource::Tmpfs(mounts::tmpfs_bytes(&mount.options)?),
                // Takes nothing of what the container may keep in memory.
                Source::Secret { .. } => MountSource::Tmpfs(Some(0)),
            };
            Ok(requests::mount(source, &mount.target, mount.read_only))
        })
        .collect::<Answer<_>>()?;
    let mut wanted = requests::of(&body.host_config, &body.config.user, judged, peers)?;
    wanted.neighbours = limits::neighbours(&body.host_config, &engine.settings)?;
    wanted.publish = ports::requests(&body.host_config, &config.exposed_ports)?;
    let composed = shelf.composed(body)?;
    let own_limits = composed.own_limits();
    let mut composed = composed.request(&wanted);
    settle_policy_sources(&mut composed, asked)?;
    let user = composed.user().unwrap_or(&config.user).to_owned();
    let user = user::resolve(
        &user,
        &body.host_config.group_add,
        composed.umask(),
        &image.layers,
    )?;
    let confinement = shelf.decide(composed, &user.identity, &engine.facts)?;
    peers.check_user_namespaces(&confinement)?;
    peers.check_reach(&confinement)?;
    let confinement = in_image(confinement, image, asked)?;
    Ok((confinement, user, own_limits))
}

/// All mounts of a request, those of other containers among them, with real paths.
fn settled_mounts(engine: &Engine, config: &ContainerConfig, host: &HostConfig) -> Answer<Vec<Asked>> {
    let mut others = Vec::new();
    for from in &host.volumes_from {
        let (name, read_only) = mounts::volumes_from(from)?;
        let container = peers::other(engine, name)?;
        others.extend(mounts::of_points(&container.shared().record.mounts, read_only));
    }
    let mut mounts = mounts::asked(config, host, others)?;
    // Of no concern where no volume is asked for, as with dockerd.
    let driver = host.volume_driver.as_str();
    let is_volume = |mount: &Asked| matches!(mount.source, Source::Volume { .. });
    if !matches!(driver, "" | "local") && mounts.iter().any(is_volume) {
        return Err(Refusal::missing(format!(
            "error looking up volume plugin {driver}: plugin \"{driver}\" not found; there is only \"local\""
        )));
    }
    for mount in &mut mounts {
        settle_source(mount)?;
    }
    Ok(mounts)
}

/// Resolves the links of the image in the paths of file rules, once and for all: from now on the app may have its hands in the tree.
fn in_image(confinement: Confinement, image: &Image, asked: &[Asked]) -> Answer<Confinement> {
    /// What the runtime itself mounts: the image has no say below.
    const MOUNTED: [&str; 3] = ["/proc", "/sys", "/dev"];
    let of_policy = confinement
        .filesystem
        .mounts
        .iter()
        .map(|mount| mount.target.clone());
    let targets: Vec<String> = asked
        .iter()
        .map(|mount| mount.target.clone())
        .chain(of_policy)
        .collect();
    confinement.in_image(|text| {
        let path = Path::new(text);
        if MOUNTED.iter().any(|mounted| path.starts_with(mounted)) {
            return Ok(text.to_owned());
        }
        // What the image has below a mount is hidden by it.
        let shown = targets
            .iter()
            .filter(|target| path.starts_with(target))
            .max_by_key(|target| target.len())
            .map_or(path, Path::new);
        let real = kakoi_image::real_path(&image.layers, shown)
            .map_err(|cause| Refusal::bad(format!("the policy's path {text} in the image: {cause}")))
            .map(|real| {
                let below = path.strip_prefix(shown).into_iter().flatten();
                below.fold(real, |real, part| real.join(part))
            })?;
        // A link upwards would make the rule on one folder a rule on many.
        if real != path && path.starts_with(&real) {
            return Ok(text.to_owned());
        }
        real.into_os_string().into_string().map_err(|_| {
            Refusal::bad(format!(
                "the policy's path {text} leads to a name in the image that is not UTF-8"
            ))
        })
    })
}

/// Gives a bind its real path, so that no link leads around the owner's allow-list; what is missing of it is taken as it stands.
fn settle_source(mount: &mut Asked) -> Answer<()> {
    let Source::Bind { path, make } = &mut mount.source else {
        return Ok(());
    };
    if !*make && !path.exists() {
        return Err(Refusal::bad(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            path.display()
        )));
    }
    *path = real_path(path)?;
    Ok(())
}

/// The same for the binds that the policy itself brings, as far as no flag mounts something else there. They must exist: nobody asked for
/// them to be made.
fn settle_policy_sources(policy: &mut Composed, asked: &[Asked]) -> Answer<()> {
    policy.settle_binds(|source, target| {
        if asked.iter().any(|mount| mount.target == target) {
            return Ok(source.to_owned());
        }
        let path = Path::new(source);
        if !path.exists() {
            return Err(Refusal::bad(format!(
                "the policy mounts {source} at {target}, and there is no {source}; make it first"
            )));
        }
        let real = real_path(path)?;
        real.into_os_string()
            .into_string()
            .map_err(|_| Refusal::bad(format!("the real path of {source} is not UTF-8")))
    })
}

/// A path with the links on the way resolved, as far as it exists.
fn real_path(path: &Path) -> Answer<PathBuf> {
    if path
        .components()
        .any(|part| part == std::path::Component::ParentDir)
        && !path.exists()
    {
        return Err(Refusal::bad(format!(
            "bind source path does not exist: {}",
            path.display()
        )));
    }
    let mut missing = Vec::new();
    let mut standing: &Path = path;
    let real = loop {
        match fs::canonicalize(standing) {
            Ok(real) => break real,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && standing.symlink_metadata().is_err() => {
            }
            Err(cause) => {
                return Err(Refusal::bad(format!(
                    "bind source path {}: {cause}",
                    path.display()
                )));
            }
        }
        let (Some(parent), Some(name)) = (standing.parent(), standing.file_name()) else {
            break PathBuf::from("/");
        };
        missing.push(name);
        standing = parent;
    };
    Ok(missing.iter().rev().fold(real, |path, name| path.join(name)))
}

/// A policy that came with the request is kept, so that refusals can be explained by it.
fn kept_policy(body: &CreateBody) -> Option<(&'static str, String)> {
    let source = body.policy.as_ref()?.source.clone()?;
    Some((KEPT, source))
}

fn write_folders(
    record: &Record,
    plan: &RunPlan,
    files: &[(&'static str, String)],
    state_dir: &Path,
    run_dir: &Path,
) -> io::Result<()> {
    let folder = |path: &Path| DirBuilder::new().mode(0o700).create(path);
    folder(state_dir)?;
    folder(run_dir)?;
    for (name, text) in files {
        // Every user of the container reads them, at their places in `/etc`.
        let path = state_dir.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    if !record.host_config.auto_remove {
        crate::state::copies::keep(state_dir, record);
    }
    plan::write(state_dir, plan, !record.host_config.auto_remove)
}

/// Renames a container.
pub async fn rename(engine: &Arc<Engine>, container: &Arc<Container>, to: &str) -> Answer<()> {
    let _turn = container.turn().await;
    if to.trim_start_matches('/').is_empty() {
        return Err(Refusal::bad("Neither old nor new names may be empty"));
    }
    let old = container.name();
    if old == to.trim_start_matches('/') {
        return Err(Refusal::bad(
            "Renaming a container with the same name as its current name",
        ));
    }
    if container.pulse().borrow().gone {
        return Err(Refusal::missing(format!("No such container: {}", container.id)));
    }
    let new = engine.containers.reserve(to, &container.id)?;
    let record = {
        let mut shared = container.shared();
        shared.record.name.clone_from(&new);
        shared.record.clone()
    };
    if let Err(cause) = engine.store.put(&record).await {
        container.shared().record.name = old;
        engine.containers.release(&new);
        return Err(Refusal::failed("the new name cannot be recorded", cause));
    }
    if !record.host_config.auto_remove {
        crate::state::copies::keep(&engine.paths.state_dir(&container.id), &record);
    }
    engine.containers.release(&old);
    let mut attributes = container.attributes();
    attributes.insert("oldName".into(), format!("/{old}"));
    engine
        .events
        .tell("container", "rename", &container.id, attributes);
    Ok(())
}
