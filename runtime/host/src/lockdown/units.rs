//! Services: units of systemd and scripts of OpenRC that are stopped and kept from starting, or only told where there is neither.
//!
//! What stands is read from files alone: links in `/etc` and `/run`, which say what starts and what was started, and what is masked. Sources: systemctl(1),
//! systemd.unit(5), openrc(8).

use std::collections::BTreeMap;

use kakoi_policy::host::lockdown::{Lockdown, SERVICES, Section, Service};

use super::item::{Item, Knob, Undo, Verdict};
use super::place::Place;
use super::processes;

/// A unit that is stopped and does not start, in the words of a [`Knob::Unit`].
pub const CLOSED: &str = "stopped,masked";

const CONSOLE_GETTY: &str = "console-getty.service";

/// What runs services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// OpenRC.
    OpenRc,
    /// Something that Kakoi does not steer.
    Other,
}

/// Services by what they are called: units of systemd, scripts of OpenRC, and programs.
struct Known {
    service: Service,
    units: &'static [&'static str],
    scripts: &'static [&'static str],
    programs: &'static [&'static str],
    breaks: &'static str,
}

#[rustfmt::skip]
const KNOWN: [Known; 14] = [
    Known { service: Service::Ssh, units: &["ssh.service", "sshd.service", "ssh.socket", "sshd.socket", "dropbear.service", "dropbear.socket"], scripts: &["sshd", "dropbear"], programs: &["sshd", "dropbear"], breaks: "logins over the network; sessions that stand may end" },
    Known { service: Service::Mdns, units: &["avahi-daemon.service", "avahi-daemon.socket", "mdnsd.service"], scripts: &["avahi-daemon", "mdnsd"], programs: &["avahi-daemon", "mdnsd"], breaks: "names in .local, and being found" },
    Known { service: Service::Telnet, units: &["telnet.socket", "telnetd.service", "inetutils-telnetd.service"], scripts: &["telnetd", "busybox-telnetd"], programs: &["telnetd", "in.telnetd"], breaks: "logins by telnet" },
    Known { service: Service::Ftp, units: &["vsftpd.service", "proftpd.service", "pure-ftpd.service", "tftpd-hpa.service", "tftp.socket"], scripts: &["vsftpd", "proftpd", "in.tftpd"], programs: &["vsftpd", "proftpd", "pure-ftpd", "in.tftpd"], breaks: "transfers by FTP" },
    Known { service: Service::Snmp, units: &["snmpd.service", "snmptrapd.service"], scripts: &["snmpd", "snmptrapd"], programs: &["snmpd", "snmptrapd"], breaks: "monitoring by SNMP" },
    Known { service: Service::Nfs, units: &["nfs-server.service", "rpcbind.service", "rpcbind.socket", "rpc-statd.service"], scripts: &["nfs", "rpcbind", "rpc.statd"], programs: &["rpcbind", "rpc.statd", "rpc.mountd"], breaks: "network file systems, served and mounted" },
    Known { service: Service::Smb, units: &["smbd.service", "nmbd.service", "samba.service", "wsdd.service"], scripts: &["samba", "wsdd"], programs: &["smbd", "nmbd", "wsdd"], breaks: "Windows' file sharing" },
    Known { service: Service::Printing, units: &["cups.service", "cups.socket", "cups.path", "cups-browsed.service"], scripts: &["cupsd", "cups-browsed"], programs: &["cupsd", "cups-browsed"], breaks: "printing" },
    Known { service: Service::Bluetooth, units: &["bluetooth.service"], scripts: &["bluetooth"], programs: &["bluetoothd"], breaks: "Bluetooth" },
    Known { service: Service::Modem, units: &["ModemManager.service", "ofono.service"], scripts: &["modemmanager", "ofono"], programs: &["ModemManager", "ofonod"], breaks: "mobile networks" },
    Known { service: Service::Automount, units: &["udisks2.service", "autofs.service"], scripts: &["udisks2", "autofs"], programs: &["udisksd", "automount"], breaks: "media that mount themselves" },
    Known { service: Service::RemoteDesktop, units: &["xrdp.service", "vncserver-x11-serviced.service", "cockpit.socket", "cockpit.service", "webmin.service"], scripts: &["xrdp", "webmin"], programs: &["xrdp", "Xvnc", "x11vnc", "cockpit-ws"], breaks: "remote desktops and consoles" },
    Known { service: Service::Inetd, units: &["inetd.service", "xinetd.service", "inetutils-inetd.service", "openbsd-inetd.service"], scripts: &["inetd", "xinetd"], programs: &["inetd", "xinetd"], breaks: "whatever the super-server starts" },
    Known { service: Service::Debug, units: &["debug-shell.service", "adbd.service", "gdbserver.service"], scripts: &["adbd"], programs: &["adbd", "gdbserver", "lldb-server"], breaks: "debugging over cables and the network" },
];

/// Where systemd looks for units, the first before the others.
const FOLDERS: [&str; 6] = [
    "etc/systemd/system",
    "run/systemd/system",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// Units as they stand.
pub struct Units {
    init: Init,
    place: Place,
    /// Programs that run, by name.
    running: BTreeMap<String, u32>,
}

impl Units {
    /// Looks at what runs services.
    pub fn look(place: &Place) -> Self {
        let init = if place.is_there("run/systemd/system") {
            Init::Systemd
        } else if place.is_there("run/openrc/softlevel") {
            Init::OpenRc
        } else {
            Init::Other
        };
        let running = processes::ids(place)
            .into_iter()
            .rev()
            .map(|pid| (processes::name(place, pid), pid));
        Self {
            init,
            place: place.clone(),
            running: running.collect(),
        }
    }

    /// What runs services.
    pub fn init(&self) -> Init {
        self.init
    }

    /// How a unit stands, in the words of a [`Knob::Unit`]; `None` where there is no such unit.
    pub fn state(&self, unit: &str) -> Option<String> {
        match self.init {
            Init::Systemd => self.systemd(unit),
            Init::OpenRc => {
                let place = &self.place;
                place.is_there(&format!("etc/init.d/{unit}")).then_some(())?;
                let runs = place.is_there(&format!("run/openrc/started/{unit}"));
                let levels = place.names("etc/runlevels");
                let levels: Vec<&str> = levels
                    .iter()
                    .map(String::as_str)
                    .filter(|level| place.is_there(&format!("etc/runlevels/{level}/{unit}")))
                    .collect();
                Some(match (runs, levels.is_empty()) {
                    (false, true) => CLOSED.to_owned(),
                    (true, _) => format!("started,{}", levels.join("+")),
                    (false, false) => format!("stopped,{}", levels.join("+")),
                })
            }
            Init::Other => None,
        }
    }

    fn systemd(&self, unit: &str) -> Option<String> {
        let found = FOLDERS.iter().find(|folder| {
            self.place.is_there(&format!("{folder}/{unit}"))
                || template_of(unit).is_some_and(|name| self.place.is_there(&format!("{folder}/{name}")))
        })?;
        let path = format!("{found}/{unit}");
        let is_masked = self.place.link(&path).as_deref() == Some("/dev/null");
        let runs = self
            .place
            .is_there(&format!("run/systemd/units/invocation:{unit}"));
        Some(match (runs, is_masked) {
            (false, true) => CLOSED.to_owned(),
            (true, true) => "started,masked".to_owned(),
            (true, false) => "started,unmasked".to_owned(),
            (false, false) => "stopped,unmasked".to_owned(),
        })
    }

    /// The unit that asks for logins at a terminal, or did.
    pub(super) fn getty_of(&self, terminal: &str) -> Option<(String, String)> {
        if self.init != Init::Systemd {
            return None;
        }
        getty_names(terminal).into_iter().find_map(|unit| {
            let state = self.state(&unit)?;
            (state != "stopped,unmasked").then_some((unit, state))
        })
    }

    /// Gettys that are masked for terminals that are not allowed.
    pub(super) fn closed_gettys(&self, allowed: &[String]) -> Vec<Item> {
        if self.init != Init::Systemd {
            return Vec::new();
        }
        let masked = self
            .place
            .names("etc/systemd/system")
            .into_iter()
            .filter_map(|unit| {
                let terminal = match unit.split_once('@') {
                    None if unit == CONSOLE_GETTY => "console",
                    Some(("getty" | "serial-getty", rest)) => rest.strip_suffix(".service")?,
                    _ => return None,
                };
                let terminal = terminal.to_owned();
                (!terminal.is_empty() && !allowed.contains(&terminal)).then_some((unit, terminal))
            });
        let closed = masked.filter(|(unit, _)| self.state(unit).as_deref() == Some(CLOSED));
        closed
            .map(|(unit, terminal)| {
                Item::new(Section::Consoles, &terminal)
                    .declared("no login")
                    .actual(format!("{unit} is masked"), Verdict::Ok)
                    .how(format!("{unit} is stopped and masked"))
                    .turn(Knob::Unit(unit), CLOSED, CLOSED, Undo::Now)
            })
            .collect()
    }
}

fn getty_names(terminal: &str) -> [String; 3] {
    [
        format!("serial-getty@{terminal}.service"),
        format!("getty@{terminal}.service"),
        CONSOLE_GETTY.to_owned(),
    ]
}

/// `getty@.service` of `getty@tty1.service`.
fn template_of(unit: &str) -> Option<String> {
    let (name, rest) = unit.split_once('@')?;
    let (_, kind) = rest.rsplit_once('.')?;
    Some(format!("{name}@.{kind}"))
}

/// Everything about services.
pub(super) fn items(lockdown: &Lockdown, units: &Units) -> Vec<Item> {
    let mut items = Vec::new();
    if let Some(allowed) = lockdown.services.only() {
        for (word, service) in SERVICES.iter().filter(|(_, service)| !allowed.contains(service)) {
            let known = KNOWN.iter().find(|known| known.service == *service);
            items.extend(
                known
                    .map(|known| of_service(word, known, units))
                    .unwrap_or_default(),
            );
        }
    }
    let further = lockdown.close_services.iter();
    items.extend(further.map(|name| {
        let item = Item::new(Section::Services, name).declared("closed by name");
        match units.state(name) {
            Some(state) => of_unit(item, name, state, "what it serves"),
            None => item.actual("there is no such unit", absent(units)),
        }
    }));
    items
}

/// That something is not there is evidence only where one knows where to look.
fn absent(units: &Units) -> Verdict {
    match units.init {
        Init::Systemd | Init::OpenRc => Verdict::Ok,
        Init::Other => Verdict::Unknown,
    }
}

fn of_unit(item: Item, name: &str, state: String, breaks: &str) -> Item {
    let verdict = match state == CLOSED {
        true => Verdict::Ok,
        false => Verdict::Drift,
    };
    item.actual(state.as_str(), verdict)
        .how("stopped and masked, or taken out of its runlevels")
        .breaks(breaks)
        .turn(Knob::Unit(name.to_owned()), state, CLOSED, Undo::Now)
}

fn of_service(word: &str, known: &Known, units: &Units) -> Vec<Item> {
    let names = match units.init {
        Init::Systemd => known.units,
        Init::OpenRc => known.scripts,
        Init::Other => &[],
    };
    let mut items: Vec<Item> = names
        .iter()
        .filter_map(|name| Some((name, units.state(name)?)))
        .map(|(name, state)| {
            let item =
                Item::new(Section::Services, format!("{word}/{name}")).declared(format!("{word} closed"));
            of_unit(item, name, state, known.breaks)
        })
        .collect();
    let programs = known.programs.iter();
    let running: Vec<String> = programs
        .filter_map(|name| Some(format!("{name} ({})", units.running.get(*name)?)))
        .collect();
    // Whoever stops a unit stops its program; one that is of no unit is told.
    let is_units = items.iter().any(|item| item.actual.starts_with("started"));
    if !running.is_empty() && !is_units {
        items.push(
            Item::new(Section::Services, format!("{word}/process"))
                .declared(format!("{word} closed"))
                .actual(format!("{} runs", running.join(", ")), Verdict::Drift)
                .how("not by Kakoi: nothing that it steers started it")
                .breaks(known.breaks),
        );
    }
    if items.is_empty() {
        let item = Item::new(Section::Services, word).declared(format!("{word} closed"));
        items.push(match units.running.is_empty() {
            true => item.actual("/proc cannot be read", Verdict::Unknown),
            false => item.actual(
                "not installed under a name that Kakoi knows, and no such program runs",
                Verdict::Ok,
            ),
        });
    }
    items
}
