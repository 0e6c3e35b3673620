//! `kakoi update`: change the limits of containers, running or not.

use kakoi_api::container::UpdateBody;

use crate::client::{Client, ClientError, Target};
use crate::create::{FlagError, parse_cpus, parse_limit, parse_restart};
use crate::each::{self, Told};
use crate::failure::Failure;
use crate::output;
use crate::text::parse_size;

/// The arguments of `kakoi update`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Memory limit, as in 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Limit of memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory_swap: Option<String>,
    /// Memory that the kernel tries to leave
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// Processors, as in 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Relative processor weight
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    cpu_shares: Option<i64>,
    /// Scheduling period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<i64>,
    /// Processor time in each period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Processors by number, as in 0-1,3
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes by number
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Relative weight of block I/O
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// When to start again: no, on-failure[:ATTEMPTS], always, unless-stopped
    #[arg(long, value_name = "WHEN")]
    restart: Option<String>,
    /// Names or ids of containers
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

/// Changes limits.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let body = serde_json::to_value(body(&arguments)?).map_err(ClientError::Encode)?;
    let request = async |name: String| {
        let answer = client
            .post(
                Target::new("/containers").segment(&name).segment("update"),
                Some(&body),
            )
            .await?;
        for warning in answer["Warnings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|words| words.as_str())
        {
            output::complain(&format!("Warning: {}", crate::text::printable(warning)));
        }
        Ok(Told::Line(name))
    };
    each::run(&arguments.names, request, each::engine_status).await
}

fn body(arguments: &Arguments) -> Result<UpdateBody, FlagError> {
    let text = |flag| move |cause| FlagError::Text { flag, cause };
    let value = |flag| move |cause| FlagError::Value { flag, cause };
    Ok(UpdateBody {
        blkio_weight: arguments.blkio_weight.unwrap_or(0),
        cpu_shares: arguments.cpu_shares.unwrap_or(0),
        cpu_period: arguments.cpu_period.unwrap_or(0),
        cpu_quota: arguments.cpu_quota.unwrap_or(0),
        cpuset_cpus: arguments.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: arguments.cpuset_mems.clone().unwrap_or_default(),
        memory: arguments
            .memory
            .as_deref()
            .map_or(Ok(0), parse_size)
            .map_err(text("--memory"))?,
        memory_reservation: arguments
            .memory_reservation
            .as_deref()
            .map_or(Ok(0), parse_size)
            .map_err(text("--memory-reservation"))?,
        memory_swap: arguments
            .memory_swap
            .as_deref()
            .map_or(Ok(0), parse_limit)
            .map_err(text("--memory-swap"))?,
        nano_cpus: arguments
            .cpus
            .as_deref()
            .map_or(Ok(0), parse_cpus)
            .map_err(value("--cpus"))?,
        pids_limit: arguments.pids_limit,
        restart_policy: arguments
            .restart
            .as_deref()
            .map(parse_restart)
            .transpose()
            .map_err(value("--restart"))?,
    })
}
