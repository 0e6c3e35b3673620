//! `kakoi network`: networks of bridges, and who is in them.

use clap::Subcommand;
use kakoi_api::network::{EndpointSettings, NetworkConnect, NetworkDisconnect};
use serde_json::{Value, json};

use super::{exists, inspect, prune};
use crate::client::{Client, ClientError, Target};
use crate::create::{networks, read_labels};
use crate::each::{self, Told};
use crate::failure::{ENGINE, Failure};
use crate::listing::{Column, Format, Listing, filters, items};
use crate::{output, text};

mod body;

use body::CreateArguments;
pub use body::check_flags;

const COLUMNS: [Column; 4] = [
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
];

/// Commands about networks.
#[derive(Subcommand, Debug)]
pub enum NetworkCommand {
    /// Put a container into a network, also while it runs
    Connect(ConnectArguments),
    /// Make a network
    Create(CreateArguments),
    /// Take a container out of a network, also while it runs
    Disconnect(DisconnectArguments),
    /// Tell by the exit code whether a network exists
    Exists(exists::Arguments),
    /// Show everything about networks, and who is in them
    Inspect(inspect::KindArguments),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ListArguments),
    /// Remove networks that no container is in
    Prune(prune::Arguments),
    /// Bring links and packet filter rules of running containers back, whoever took them away
    Reload(ReloadArguments),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(RemoveArguments),
}

/// The arguments of `kakoi network ls`.
#[derive(clap::Args, Debug)]
pub struct ListArguments {
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Leave out the titles
    #[arg(short = 'n', long)]
    noheading: bool,
    /// Only those that fit, as in name=app, driver=bridge, label=app=db or dangling=true
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// table, json, a template, or table and a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The arguments of `kakoi network rm`.
#[derive(clap::Args, Debug)]
pub struct RemoveArguments {
    /// Say nothing about networks that do not exist
    #[arg(short, long)]
    force: bool,
    /// Names or ids of networks
    #[arg(value_name = "NETWORK", required = true)]
    names: Vec<String>,
}

/// The arguments of `kakoi network reload`.
#[derive(clap::Args, Debug)]
pub struct ReloadArguments {
    /// Every container that runs
    #[arg(short, long, conflicts_with = "names")]
    all: bool,
    /// Names or ids of containers
    #[arg(value_name = "CONTAINER", required_unless_present = "all")]
    names: Vec<String>,
}

/// The arguments of `kakoi network connect`.
#[derive(clap::Args, Debug)]
pub struct ConnectArguments {
    /// Further name of the container in the network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// IPv4 address in the network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// IPv6 address in the network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Hardware address in the network
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Order among the container's networks: the highest gives the default route
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    gw_priority: i64,
    /// Option of the driver
    #[arg(long, value_name = "NAME=VALUE")]
    driver_opt: Vec<String>,
    /// The network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// The arguments of `kakoi network disconnect`.
#[derive(clap::Args, Debug)]
pub struct DisconnectArguments {
    /// Say nothing about a container that does not exist
    #[arg(short, long)]
    force: bool,
    /// The network
    #[arg(value_name = "NETWORK")]
    network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// A flag's value that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {text:?}: {words}")]
struct ValueError {
    flag: &'static str,
    text: String,
    words: &'static str,
}

/// Runs a command about networks.
pub async fn run(command: NetworkCommand, client: &Client) -> Result<u8, Failure> {
    match command {
        NetworkCommand::Connect(arguments) => connect(arguments, client).await,
        NetworkCommand::Create(arguments) => create(arguments, client).await,
        NetworkCommand::Disconnect(arguments) => disconnect(arguments, client).await,
        NetworkCommand::Exists(arguments) => exists::run(arguments, "/networks", client).await,
        NetworkCommand::Inspect(arguments) => inspect::run_network(arguments, client).await,
        NetworkCommand::Ls(arguments) => list(arguments, client).await,
        NetworkCommand::Prune(arguments) => prune::run_networks(arguments, client).await,
        NetworkCommand::Reload(arguments) => reload(arguments, client).await,
        NetworkCommand::Rm(arguments) => remove(arguments, client).await,
    }
}

/// Prints the name, as Podman does: whoever makes a network knows it by that.
async fn create(arguments: CreateArguments, client: &Client) -> Result<u8, Failure> {
    let is_spared = arguments.ignore;
    let body = body::network_body(arguments)?;
    let request = serde_json::to_value(&body).map_err(ClientError::Encode)?;
    match client.post(Target::new("/networks/create"), Some(&request)).await {
        Ok(answer) => {
            let warning = answer["Warning"].as_str().unwrap_or_default();
            if !warning.is_empty() {
                output::complain(&format!("Warning: {}", text::printable(warning)));
            }
        }
        Err(error) if is_spared && error.status() == Some(409) => {}
        Err(error) => return Err(error.into()),
    }
    output::line(&body.name)?;
    Ok(0)
}

async fn list(arguments: ListArguments, client: &Client) -> Result<u8, Failure> {
    let format = Format::parse(arguments.format.as_deref())?;
    let target = Target::new("/networks").maybe("filters", filters(&arguments.filter)?.as_deref());
    let raw = client.get(target).await?;
    let rows: Vec<Value> = items(&raw)
        .iter()
        .map(|item| row(item, arguments.no_trunc))
        .collect();
    if arguments.quiet {
        let ids: Vec<String> = rows
            .iter()
            .map(|row| format!("{}\n", row["ID"].as_str().unwrap_or_default()))
            .collect();
        output::print(&ids.concat())?;
        return Ok(0);
    }
    let listing = Listing {
        columns: &COLUMNS,
        raw: &raw,
        rows: &rows,
        has_no_titles: arguments.noheading,
    };
    listing.show(&format)?;
    Ok(0)
}

fn row(item: &Value, is_whole: bool) -> Value {
    let labels = item["Labels"].as_object().into_iter().flatten();
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    let subnets: Vec<&str> = items(&item["IPAM"]["Config"])
        .iter()
        .filter_map(|subnet| subnet["Subnet"].as_str())
        .collect();
    json!({
        "ID": text::short_id(item["Id"].as_str().unwrap_or_default(), is_whole),
        "Name": item["Name"],
        "Driver": item["Driver"],
        "Scope": item["Scope"],
        "IPv4": item["EnableIPv4"],
        "IPv6": item["EnableIPv6"],
        "Internal": item["Internal"],
        "Subnets": subnets.join(","),
        "Labels": labels.join(","),
        "CreatedAt": item["Created"],
    })
}

/// Podman's: 1 where it does not exist, 2 where it is in use or has to stay.
fn status_of(error: &ClientError) -> u8 {
    match error.status() {
        Some(404) => 1,
        Some(403 | 409) => 2,
        _ => ENGINE,
    }
}

async fn remove(arguments: RemoveArguments, client: &Client) -> Result<u8, Failure> {
    let request = async |name: String| {
        let target = Target::new("/networks").segment(&name);
        match client.delete(target).await {
            Ok(_) => Ok(Told::Line(name)),
            Err(error) if arguments.force && error.is_not_found() => Ok(Told::Nothing),
            Err(error) => Err(error),
        }
    };
    each::run(&arguments.names, request, status_of).await
}

async fn reload(arguments: ReloadArguments, client: &Client) -> Result<u8, Failure> {
    let mut names = arguments.names;
    if arguments.all {
        let list = client.get(Target::new("/containers/json")).await?;
        let ids = items(&list).iter().filter_map(|row| row["Id"].as_str());
        names.extend(ids.map(str::to_owned));
    }
    let request = async |name: String| {
        let target = Target::new("/networks/reload").query("container", &name);
        client.post(target, None).await.map(|_| Told::Line(name))
    };
    each::run(&names, request, |_| ENGINE).await
}

async fn connect(arguments: ConnectArguments, client: &Client) -> Result<u8, Failure> {
    let place = |flag, text: &str, words| ValueError {
        flag,
        text: text.to_owned(),
        words,
    };
    let options = read_labels(&arguments.driver_opt, &[])?;
    let mut settings = EndpointSettings {
        gw_priority: arguments.gw_priority,
        driver_opts: (!options.is_empty()).then_some(options),
        ..EndpointSettings::default()
    };
    for alias in &arguments.alias {
        networks::add_alias(&mut settings, alias).map_err(|words| place("--alias", alias, words))?;
    }
    for (flag, text, is_ipv6) in [("--ip", &arguments.ip, false), ("--ip6", &arguments.ip6, true)] {
        if let Some(text) = text {
            networks::set_address(&mut settings, text, is_ipv6).map_err(|words| place(flag, text, words))?;
        }
    }
    if let Some(mac) = arguments.mac_address {
        networks::check_mac("--mac-address", &mac)?;
        settings.mac_address = mac;
    }
    let body = NetworkConnect {
        container: arguments.container,
        endpoint_config: Some(settings),
    };
    act(&arguments.network, "connect", serde_json::to_value(&body), client).await
}

async fn disconnect(arguments: DisconnectArguments, client: &Client) -> Result<u8, Failure> {
    let body = NetworkDisconnect {
        container: arguments.container,
        force: arguments.force,
    };
    act(
        &arguments.network,
        "disconnect",
        serde_json::to_value(&body),
        client,
    )
    .await
}

async fn act(
    network: &str,
    what: &'static str,
    body: serde_json::Result<Value>,
    client: &Client,
) -> Result<u8, Failure> {
    let body = body.map_err(ClientError::Encode)?;
    let target = Target::new("/networks").segment(network).segment(what);
    client.post(target, Some(&body)).await?;
    Ok(0)
}
