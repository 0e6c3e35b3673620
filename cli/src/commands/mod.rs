//! The commands, one file each.
//!
//! Owns the tree of words. Refuses to know what any command does.

pub mod app;
pub mod attach;
pub mod audit;
pub mod check;
pub mod commit;
pub mod completion;
pub mod cp;
pub mod create;
pub mod df;
pub mod diff;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod exists;
pub mod export;
pub mod gc;
pub mod history;
pub mod host;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod kill;
pub mod load;
pub mod login;
pub mod logs;
pub mod man;
pub mod network;
pub mod os;
pub mod pause;
pub mod policy;
pub mod port;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod push;
pub mod quadlet;
pub mod registry;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod secret;
pub mod start;
pub mod stats;
pub mod stop;
pub mod tag;
pub mod top;
pub mod trust;
pub mod update;
pub mod version;
pub mod volume;
pub mod wait;
pub mod why;

use clap::Subcommand;

use crate::client::Client;
use crate::deferred::Deferred;
use crate::failure::Failure;

/// Every command.
#[derive(Subcommand, Debug)]
pub enum Command {
    // Containers.
    /// Make a container and run it
    #[command(
        disable_help_flag = true,
        override_usage = "kakoi run [OPTIONS] IMAGE [COMMAND] [ARG...]"
    )]
    Run(Deferred<run::Arguments>),
    /// Make a container without starting it
    #[command(
        disable_help_flag = true,
        override_usage = "kakoi create [OPTIONS] IMAGE [COMMAND] [ARG...]"
    )]
    Create(Deferred<create::Arguments>),
    /// Start containers
    Start(start::Arguments),
    /// Stop containers: ask, wait, then kill
    Stop(stop::Arguments),
    /// Stop and start containers
    Restart(restart::Arguments),
    /// Send a signal to containers
    Kill(kill::Arguments),
    /// Freeze containers
    Pause(pause::Arguments),
    /// Thaw containers
    Unpause(pause::UnpauseArguments),
    /// Wait for containers to end and print their exit codes
    Wait(wait::Arguments),
    /// Remove containers
    Rm(rm::Arguments),
    /// Give a container another name
    Rename(rename::Arguments),
    /// Change the limits of containers
    Update(update::Arguments),
    /// List containers
    #[command(visible_alias = "ls")]
    Ps(ps::Arguments),
    /// Show what containers printed
    Logs(logs::Arguments),
    /// Run a program in a running container
    #[command(override_usage = "kakoi exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
    Exec(exec::Arguments),
    /// Attach to a running container
    Attach(attach::Arguments),
    /// Show everything about containers, images, networks or volumes
    Inspect(inspect::Arguments),
    /// Show what containers use
    Stats(stats::Arguments),
    /// Show a container's processes
    Top(top::Arguments),
    /// Show where a container's ports are published
    #[command(override_usage = "kakoi port [OPTIONS] CONTAINER [PORT[/PROTOCOL]]")]
    Port(port::Arguments),
    /// Make an image of a container and its changes
    Commit(commit::Arguments),
    /// Copy files between a container and this machine
    #[command(
        override_usage = "kakoi cp [OPTIONS] CONTAINER:PATH PATH|-\n       kakoi cp [OPTIONS] PATH|- CONTAINER:PATH"
    )]
    Cp(cp::Arguments),
    /// List what a container changed of its image's files
    Diff(diff::Arguments),
    /// Write a container's files into an archive
    Export(export::Arguments),
    /// Tell what a container was refused lately, by which rule, and what would allow it
    Why(why::Arguments),

    // Images.
    /// List images
    Images(images::Arguments),
    /// Load images from an archive
    Load(load::Arguments),
    /// Save images to an archive
    Save(save::Arguments),
    /// Make an image from the archive of a file tree
    Import(import::Arguments),
    /// Give an image another name
    Tag(tag::Arguments),
    /// Remove images
    Rmi(rmi::Arguments),
    /// Show how an image was made
    History(history::Arguments),
    /// Fetch images from registries
    Pull(pull::Arguments),
    /// Send an image to its registry
    Push(push::Arguments),
    /// List the tags of a registry's repository
    Tags(registry::TagsArguments),
    /// Look at manifests in registries
    #[command(subcommand)]
    Manifest(registry::ManifestCommand),
    /// Log in to a registry
    Login(login::LoginArguments),
    /// Log out of a registry
    Logout(login::LogoutArguments),

    // Nouns.
    /// Have apps run, version after version, and return by themselves from one that fails
    #[command(subcommand)]
    App(app::AppCommand),
    /// Show and verify what was decided on this device, by whom and by which rule
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Close the device's interfaces but those that its owner declared open
    #[command(subcommand)]
    Host(host::HostCommand),
    /// Install the device's operating system into the slot that does not run, and keep it when it is well
    #[command(subcommand)]
    Os(os::OsCommand),
    /// Commands about containers
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Commands about images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Commands about networks
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Commands about volumes
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Values that apps are given and nobody else
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Apps as files in the style of systemd's units
    #[command(subcommand)]
    Quadlet(quadlet::QuadletCommand),
    /// Commands about the whole engine
    #[command(subcommand)]
    System(SystemCommand),
    /// Check, show and explain policies
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Decide whose images run on this device
    #[command(subcommand, after_help = trust::VERIFIED)]
    Trust(trust::TrustCommand),

    // The engine.
    /// Show what happens, as it happens
    Events(events::Arguments),
    /// Show the engine's state
    Info(info::Arguments),
    /// Show the versions of client and daemon
    Version(version::Arguments),
    /// Show what this device can enforce, what is missing and what that costs
    Doctor(doctor::Arguments),
    /// Print a shell's completion script
    Completion(completion::Arguments),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Arguments),
}

/// Commands about containers.
#[derive(Subcommand, Debug)]
pub enum ContainerCommand {
    /// Attach to a running container
    Attach(attach::Arguments),
    /// Make a container without starting it
    #[command(
        disable_help_flag = true,
        override_usage = "kakoi container create [OPTIONS] IMAGE [COMMAND] [ARG...]"
    )]
    Create(Deferred<create::Arguments>),
    /// Run a program in a running container
    #[command(override_usage = "kakoi container exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
    Exec(exec::Arguments),
    /// Make an image of a container and its changes
    Commit(commit::Arguments),
    /// Copy files between a container and this machine
    #[command(
        override_usage = "kakoi container cp [OPTIONS] CONTAINER:PATH PATH|-\n       kakoi container cp [OPTIONS] PATH|- CONTAINER:PATH"
    )]
    Cp(cp::Arguments),
    /// List what a container changed of its image's files
    Diff(diff::Arguments),
    /// Write a container's files into an archive
    Export(export::Arguments),
    /// Tell by the exit code whether a container exists
    Exists(exists::Arguments),
    /// Show everything about containers
    Inspect(inspect::KindArguments),
    /// Send a signal to containers
    Kill(kill::Arguments),
    /// Show what containers printed
    Logs(logs::Arguments),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(ps::Arguments),
    /// Freeze containers
    Pause(pause::Arguments),
    /// Show where a container's ports are published
    #[command(override_usage = "kakoi container port [OPTIONS] CONTAINER [PORT[/PROTOCOL]]")]
    Port(port::Arguments),
    /// Remove every container that does not run
    Prune(prune::Arguments),
    /// Give a container another name
    Rename(rename::Arguments),
    /// Stop and start containers
    Restart(restart::Arguments),
    /// Remove containers
    Rm(rm::Arguments),
    /// Make a container and run it
    #[command(
        disable_help_flag = true,
        override_usage = "kakoi container run [OPTIONS] IMAGE [COMMAND] [ARG...]"
    )]
    Run(Deferred<run::Arguments>),
    /// Start containers
    Start(start::Arguments),
    /// Show what containers use
    Stats(stats::Arguments),
    /// Stop containers: ask, wait, then kill
    Stop(stop::Arguments),
    /// Show a container's processes
    Top(top::Arguments),
    /// Thaw containers
    Unpause(pause::UnpauseArguments),
    /// Change the limits of containers
    Update(update::Arguments),
    /// Wait for containers to end and print their exit codes
    Wait(wait::Arguments),
}

/// Commands about images.
#[derive(Subcommand, Debug)]
pub enum ImageCommand {
    /// Tell by the exit code whether an image exists
    Exists(exists::Arguments),
    /// Show how an image was made
    History(history::Arguments),
    /// Make an image from the archive of a file tree
    Import(import::Arguments),
    /// Show everything about images
    Inspect(inspect::KindArguments),
    /// Load images from an archive
    Load(load::Arguments),
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::Arguments),
    /// Remove images that nothing uses
    Prune(prune::ImageArguments),
    /// Fetch images from registries
    Pull(pull::Arguments),
    /// Send an image to its registry
    Push(push::Arguments),
    /// Remove images
    Rm(rmi::Arguments),
    /// Save images to an archive
    Save(save::Arguments),
    /// Give an image another name
    Tag(tag::Arguments),
}

/// Commands about the whole engine.
#[derive(Subcommand, Debug)]
pub enum SystemCommand {
    /// Look for damage to images, containers and volumes, and repair it
    #[command(after_help = check::EXIT_STATUS)]
    Check(check::Arguments),
    /// Show what images, containers and volumes take
    Df(df::Arguments),
    /// Show what happens, as it happens
    Events(events::Arguments),
    /// Make room on the disk, as a pull does before it begins
    #[command(after_help = gc::EXIT_STATUS)]
    Gc(gc::Arguments),
    /// Show the engine's state
    Info(info::Arguments),
    /// Remove everything that nothing uses
    Prune(prune::SystemArguments),
}

/// Runs a command against a daemon; its exit status comes back.
pub async fn run(command: Command, client: &Client) -> Result<u8, Failure> {
    match command {
        Command::App(command) => app::run(command, client).await,
        Command::Audit(command) => audit::run(command, client).await,
        Command::Host(command) => host::run(command, client).await,
        Command::Os(command) => os::run(command, client).await,
        Command::Run(arguments) => run::run(arguments.take(), client).await,
        Command::Create(arguments) => create::run(arguments.take(), client).await,
        Command::Start(arguments) => start::run(arguments, client).await,
        Command::Stop(arguments) => stop::run(arguments, client).await,
        Command::Restart(arguments) => restart::run(arguments, client).await,
        Command::Kill(arguments) => kill::run(arguments, client).await,
        Command::Pause(arguments) => pause::run(arguments, client).await,
        Command::Unpause(arguments) => pause::run_unpause(arguments, client).await,
        Command::Wait(arguments) => wait::run(arguments, client).await,
        Command::Rm(arguments) => rm::run(arguments, client).await,
        Command::Rename(arguments) => rename::run(arguments, client).await,
        Command::Update(arguments) => update::run(arguments, client).await,
        Command::Ps(arguments) => ps::run(arguments, client).await,
        Command::Logs(arguments) => logs::run(arguments, client).await,
        Command::Exec(arguments) => exec::run(arguments, client).await,
        Command::Attach(arguments) => attach::run(arguments, client).await,
        Command::Inspect(arguments) => inspect::run(arguments, client).await,
        Command::Stats(arguments) => stats::run(arguments, client).await,
        Command::Top(arguments) => top::run(arguments, client).await,
        Command::Port(arguments) => port::run(arguments, client).await,
        Command::Commit(arguments) => commit::run(arguments, client).await,
        Command::Cp(arguments) => cp::run(arguments, client).await,
        Command::Diff(arguments) => diff::run(arguments, client).await,
        Command::Export(arguments) => export::run(arguments, client).await,
        Command::Why(arguments) => why::run(arguments, client).await,
        Command::Images(arguments) => images::run(arguments, client).await,
        Command::Load(arguments) => load::run(arguments, client).await,
        Command::Save(arguments) => save::run(arguments, client).await,
        Command::Import(arguments) => import::run(arguments, client).await,
        Command::Tag(arguments) => tag::run(arguments, client).await,
        Command::Rmi(arguments) => rmi::run(arguments, client).await,
        Command::History(arguments) => history::run(arguments, client).await,
        Command::Pull(arguments) => pull::run(arguments, client).await,
        Command::Push(arguments) => push::run(arguments, client).await,
        Command::Tags(arguments) => registry::tags(arguments, client).await,
        Command::Manifest(command) => registry::manifest(command, client).await,
        Command::Login(arguments) => login::login(arguments, client).await,
        Command::Logout(arguments) => login::logout(&arguments),
        Command::Container(command) => run_container(command, client).await,
        Command::Image(command) => run_image(command, client).await,
        Command::Network(command) => network::run(command, client).await,
        Command::Secret(command) => secret::run(command, client).await,
        Command::Volume(command) => volume::run(command, client).await,
        Command::Quadlet(command) => quadlet::run(command),
        Command::System(command) => run_system(command, client).await,
        Command::Policy(command) => policy::run(command, client).await,
        Command::Trust(command) => trust::run(command, client).await,
        Command::Events(arguments) => events::run(arguments, client).await,
        Command::Info(arguments) => info::run(arguments, client).await,
        Command::Version(arguments) => version::run(arguments, client).await,
        Command::Doctor(arguments) => doctor::run(arguments, client).await,
        Command::Completion(arguments) => completion::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    }
}

async fn run_container(command: ContainerCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        ContainerCommand::Attach(arguments) => attach::run(arguments, client).await,
        ContainerCommand::Create(arguments) => create::run(arguments.take(), client).await,
        ContainerCommand::Exec(arguments) => exec::run(arguments, client).await,
        ContainerCommand::Commit(arguments) => commit::run(arguments, client).await,
        ContainerCommand::Cp(arguments) => cp::run(arguments, client).await,
        ContainerCommand::Diff(arguments) => diff::run(arguments, client).await,
        ContainerCommand::Export(arguments) => export::run(arguments, client).await,
        ContainerCommand::Exists(arguments) => exists::run(arguments, "/containers", client).await,
        ContainerCommand::Inspect(arguments) => inspect::run_container(arguments, client).await,
        ContainerCommand::Kill(arguments) => kill::run(arguments, client).await,
        ContainerCommand::Logs(arguments) => logs::run(arguments, client).await,
        ContainerCommand::Ls(arguments) => ps::run(arguments, client).await,
        ContainerCommand::Pause(arguments) => pause::run(arguments, client).await,
        ContainerCommand::Port(arguments) => port::run(arguments, client).await,
        ContainerCommand::Prune(arguments) => prune::run_containers(arguments, client).await,
        ContainerCommand::Rename(arguments) => rename::run(arguments, client).await,
        ContainerCommand::Restart(arguments) => restart::run(arguments, client).await,
        ContainerCommand::Rm(arguments) => rm::run(arguments, client).await,
        ContainerCommand::Run(arguments) => run::run(arguments.take(), client).await,
        ContainerCommand::Start(arguments) => start::run(arguments, client).await,
        ContainerCommand::Stats(arguments) => stats::run(arguments, client).await,
        ContainerCommand::Stop(arguments) => stop::run(arguments, client).await,
        ContainerCommand::Top(arguments) => top::run(arguments, client).await,
        ContainerCommand::Unpause(arguments) => pause::run_unpause(arguments, client).await,
        ContainerCommand::Update(arguments) => update::run(arguments, client).await,
        ContainerCommand::Wait(arguments) => wait::run(arguments, client).await,
    }
}

async fn run_image(command: ImageCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        ImageCommand::Exists(arguments) => exists::run(arguments, "/images", client).await,
        ImageCommand::History(arguments) => history::run(arguments, client).await,
        ImageCommand::Import(arguments) => import::run(arguments, client).await,
        ImageCommand::Inspect(arguments) => inspect::run_image(arguments, client).await,
        ImageCommand::Load(arguments) => load::run(arguments, client).await,
        ImageCommand::Ls(arguments) => images::run(arguments, client).await,
        ImageCommand::Prune(arguments) => prune::run_images(arguments, client).await,
        ImageCommand::Pull(arguments) => pull::run(arguments, client).await,
        ImageCommand::Push(arguments) => push::run(arguments, client).await,
        ImageCommand::Rm(arguments) => rmi::run(arguments, client).await,
        ImageCommand::Save(arguments) => save::run(arguments, client).await,
        ImageCommand::Tag(arguments) => tag::run(arguments, client).await,
    }
}

async fn run_system(command: SystemCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        SystemCommand::Check(arguments) => check::run(arguments, client).await,
        SystemCommand::Df(arguments) => df::run(arguments, client).await,
        SystemCommand::Gc(arguments) => gc::run(arguments, client).await,
        SystemCommand::Events(arguments) => events::run(arguments, client).await,
        SystemCommand::Info(arguments) => info::run(arguments, client).await,
        SystemCommand::Prune(arguments) => prune::run_system(arguments, client).await,
    }
}
