//! What the keeper cannot turn by itself.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use kakoi_host::lockdown::{self, Filter, Published};
use kakoi_net::IpNet;
use kakoi_net::firewall::{DeviceFilter, FirewallError, Input, OpenPorts};
use kakoi_net::link::Host;
use kakoi_net::ports::Protocol;
use kakoi_policy::host::Lockdown;
use kakoi_policy::host::lockdown::Transport;
use kakoi_sys::mount::{self, Attributes, NewFilesystem};

use crate::networks::Networks;
use crate::refusal::chain;

/// What is kept of a program's complaint.
const COMPLAINT_BYTES_MAX: u64 = 512;

/// The daemon's.
pub struct Hands {
    networks: Arc<Networks>,
    filter: Mutex<Option<Arc<DeviceFilter>>>,
}

impl Hands {
    pub fn new(networks: Arc<Networks>) -> Self {
        Self {
            networks,
            filter: Mutex::new(None),
        }
    }

    fn filter(&self) -> Result<Arc<DeviceFilter>, FirewallError> {
        let mut held = self.filter.lock().expect("no panic while locked");
        if let Some(filter) = &*held {
            return Ok(filter.clone());
        }
        let filter = Arc::new(DeviceFilter::open(self.networks.scope())?);
        Ok(held.insert(filter).clone())
    }

    fn input(&self, declared: &Lockdown) -> Input {
        let protocol = |transport: Transport| match transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        let declared_ports = declared.ports.only().unwrap_or_default().iter();
        let mut open: Vec<OpenPorts> = declared_ports
            .map(|port| OpenPorts {
                protocol: protocol(port.protocol),
                ports: port.first..=port.last,
                link: port.link.clone(),
                // The grammar bounds the length.
                from: port
                    .from
                    .and_then(|(address, length)| IpNet::new(address, length).ok()),
            })
            .collect();
        open.extend(
            self.networks
                .published()
                .into_iter()
                .map(|(protocol, port, _)| OpenPorts {
                    protocol,
                    ports: port..=port,
                    link: None,
                    from: None,
                }),
        );
        Input {
            open,
            ping: declared.ping,
        }
    }
}

fn other(error: &(dyn std::error::Error + 'static)) -> io::Error {
    io::Error::other(chain(error))
}

fn attributes(options: &str) -> Attributes {
    let words = options.split(',').map(|word| match word {
        "ro" => Attributes::READ_ONLY,
        "nosuid" => Attributes::NO_SUID,
        "nodev" => Attributes::NO_DEVICES,
        "noexec" => Attributes::NO_EXECUTE,
        _ => Attributes::NONE,
    });
    words.fold(Attributes::NONE, Attributes::with)
}

impl lockdown::Hands for Hands {
    fn set_link(&self, name: &str, is_up: bool) -> io::Result<()> {
        let host = Host::open(self.networks.scope()).map_err(|error| other(&error))?;
        host.turn(name, is_up).map_err(|error| other(&error))
    }

    fn published(&self) -> Vec<Published> {
        let all = self.networks.published().into_iter();
        all.filter_map(|(protocol, port, app)| {
            let protocol = match protocol {
                Protocol::Tcp => Transport::Tcp,
                Protocol::Udp => Transport::Udp,
                // No socket of the host's listens for it.
                Protocol::Sctp => return None,
            };
            Some(Published { protocol, port, app })
        })
        .collect()
    }

    fn ports(&self, declared: &Lockdown) -> Filter {
        let stands = self
            .filter()
            .and_then(|filter| filter.stands(&self.input(declared)));
        match stands {
            Ok(true) => Filter::Stands,
            Ok(false) => Filter::Missing,
            Err(error) => Filter::Unknown(chain(&error)),
        }
    }

    fn set_ports(&self, declared: Option<&Lockdown>) -> io::Result<()> {
        let set = self.filter().and_then(|filter| match declared {
            Some(declared) => filter.apply(&self.input(declared)),
            None => filter.remove(),
        });
        set.map_err(|error| other(&error))
    }

    fn run(&self, words: &[&str]) -> io::Result<()> {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut said = Vec::new();
        if let Some(mut stderr) = child.stderr.take() {
            (&mut stderr).take(COMPLAINT_BYTES_MAX).read_to_end(&mut said)?;
            // Whoever says more is not stopped by that.
            io::copy(&mut stderr, &mut io::sink())?;
        }
        let status = child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "{} ended with {status}: {}",
                words.join(" "),
                String::from_utf8_lossy(&said).trim()
            ))),
        }
    }

    fn remount(&self, at: &str, options: &str) -> io::Result<()> {
        Ok(mount::remount(Path::new(at), attributes(options)).map_err(|error| error.errno)?)
    }

    fn unmount(&self, at: &str, is_lazy: bool) -> io::Result<()> {
        let at = Path::new(at);
        let done = match is_lazy {
            true => mount::detach(at),
            false => mount::unmount(at),
        };
        Ok(done.map_err(|error| error.errno)?)
    }

    fn mount(&self, at: &str, kind: &str) -> io::Result<()> {
        let mount_it = || {
            let guarded = attributes("nosuid,nodev,noexec");
            let made = NewFilesystem::open(kind)?.mount(guarded)?;
            let target = mount::open_place(Path::new(at))?;
            mount::attach(std::os::fd::AsFd::as_fd(&made), std::os::fd::AsFd::as_fd(&target))
        };
        Ok(mount_it().map_err(|error| error.errno)?)
    }
}
