//! What is plugged in, sends, or leads into a network: USB devices, radios, interfaces.
//!
//! Sources: Documentation/usb/authorization.rst, Documentation/ABI/stable/sysfs-class-rfkill, Documentation/ABI/testing/sysfs-class-net.

use kakoi_policy::host::lockdown::{Lockdown, RADIOS, Section, USB_CLASSES, Usb};

use super::item::{Item, Knob, Undo, Verdict, same};
use super::place::Place;

const USB: &str = "sys/bus/usb/devices";

/// A USB device as it tells of itself before anybody lets it in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    vendor: u16,
    product: u16,
    serial: Option<String>,
    /// Classes of all interfaces of all configurations, or the device's own where it has one.
    classes: Vec<u8>,
}

/// Reads what a device sent: its own descriptor, then those of its configurations with their interfaces. Source: USB 2.0, section 9.6.
fn classes(bytes: &[u8]) -> Option<Vec<u8>> {
    const DEVICE: u8 = 1;
    const INTERFACE: u8 = 4;
    let mut rest = bytes;
    let mut classes = Vec::new();
    let mut is_device = false;
    while let [length, kind, ..] = *rest {
        let descriptor = rest.get(..usize::from(length)).filter(|_| length >= 2)?;
        match kind {
            // By its own class, where it is not told by each interface (0) or by groups of them (0xef).
            DEVICE => {
                is_device = true;
                let class = *descriptor.get(4)?;
                classes.extend((!matches!(class, 0 | 0xef)).then_some(class));
            }
            INTERFACE => classes.push(*descriptor.get(5)?),
            _ => {}
        }
        rest = &rest[usize::from(length)..];
    }
    classes.sort_unstable();
    classes.dedup();
    (is_device && rest.is_empty() && !classes.is_empty()).then_some(classes)
}

fn told(place: &Place, name: &str) -> Option<Told> {
    let hex = |file: &str| u16::from_str_radix(&place.word(&format!("{USB}/{name}/{file}"))?, 16).ok();
    Some(Told {
        vendor: hex("idVendor")?,
        product: hex("idProduct")?,
        serial: place.word(&format!("{USB}/{name}/serial")),
        classes: place
            .bytes(&format!("{USB}/{name}/descriptors"))
            .ok()
            .flatten()
            .and_then(|bytes| classes(&bytes))
            .unwrap_or_default(),
    })
}

/// Whether a device is let in: by what it is, or since each of its interfaces is of a class that is. One that tells no class is of none.
fn is_declared(told: &Told, declared: &[Usb]) -> bool {
    let is_it = declared.iter().any(|usb| match usb {
        Usb::Class(_) => false,
        Usb::Device {
            vendor,
            product,
            serial,
        } => {
            (*vendor, *product) == (told.vendor, told.product)
                && serial
                    .as_ref()
                    .is_none_or(|serial| told.serial.as_ref() == Some(serial))
        }
    });
    let is_open = |class: &u8| declared.contains(&Usb::Class(*class));
    is_it || (!told.classes.is_empty() && told.classes.iter().all(is_open))
}

fn spoken(told: &Told) -> String {
    let class = |class: &u8| {
        let named = USB_CLASSES.iter().find(|(_, other)| other == class);
        named.map_or_else(|| format!("0x{class:02x}"), |(word, _)| (*word).to_owned())
    };
    let classes: Vec<String> = told.classes.iter().map(class).collect();
    let classes = match classes.is_empty() {
        true => "no class told".to_owned(),
        false => classes.join(", "),
    };
    let serial = told.serial.as_deref().unwrap_or_default();
    let serial: String = serial.chars().filter(|c| !c.is_control()).take(126).collect();
    let serial = if serial.is_empty() {
        serial
    } else {
        format!(":{serial}")
    };
    format!("{:04x}:{:04x}{serial} ({classes})", told.vendor, told.product)
}

/// Everything about USB.
pub(super) fn usb(lockdown: &Lockdown, place: &Place) -> Vec<Item> {
    let Some(declared) = lockdown.usb.only() else {
        return Vec::new();
    };
    let names = place.names(USB);
    let mut items = Vec::new();
    if names.is_empty() {
        let item = Item::new(Section::Usb, "buses").declared("devices are let in by name alone");
        items.push(match place.is_there("sys/class") {
            true => item.actual("there is no USB here", Verdict::Ok),
            false => item.actual("/sys cannot be read", Verdict::Unknown),
        });
    }
    // `1-1:1.0` is an interface of `1-1`.
    for name in names.iter().filter(|name| !name.contains(':')) {
        items.push(match name.starts_with("usb") {
            true => bus(place, name),
            false => device(place, name, declared),
        });
    }
    items
}

fn bus(place: &Place, name: &str) -> Item {
    let file = format!("{USB}/{name}/authorized_default");
    let item = Item::new(Section::Usb, name)
        .declared("what is plugged in waits to be let in")
        .how(format!("written to /{file}"))
        .breaks("devices that are plugged in and not declared");
    match place.word(&file) {
        None => item.actual("the kernel does not tell", Verdict::Unknown),
        Some(value) => {
            let said = match value.as_str() {
                "0" => "waits",
                "2" => "is let in at ports that are soldered",
                _ => "is let in",
            };
            item.actual(format!("what is plugged in {said}"), same(value == "0"))
                .turn(Knob::File(file), value, "0", Undo::Now)
        }
    }
}

fn device(place: &Place, name: &str, declared: &[Usb]) -> Item {
    let file = format!("{USB}/{name}/authorized");
    let item = Item::new(Section::Usb, name).how(format!("written to /{file}"));
    let (Some(told), Some(value)) = (told(place, name), place.word(&file)) else {
        return item.actual("the device does not tell what it is", Verdict::Unknown);
    };
    let is_declared = is_declared(&told, declared);
    let (wanted, said) = match is_declared {
        true => ("1", "let in"),
        false => ("0", "closed"),
    };
    let stands = if value == "0" { "closed" } else { "let in" };
    item.declared(said)
        .actual(format!("{}: {stands}", spoken(&told)), same(value == wanted))
        .breaks(if is_declared {
            ""
        } else {
            "this device, and what hangs on it"
        })
        .turn(Knob::File(file), value, wanted, Undo::Now)
}

/// Everything about radios.
pub(super) fn radios(lockdown: &Lockdown, place: &Place) -> Vec<Item> {
    const CLASS: &str = "sys/class/rfkill";
    let Some(allowed) = lockdown.radios.only() else {
        return Vec::new();
    };
    let mut items: Vec<Item> = Vec::new();
    for name in place.names(CLASS) {
        let read = |file: &str| place.word(&format!("{CLASS}/{name}/{file}"));
        let kind = read("type").unwrap_or_default();
        let radio = RADIOS.iter().find(|(_, word, _)| *word == kind);
        let shown = radio.map_or(kind.as_str(), |(word, _, _)| *word);
        let item = Item::new(Section::Radios, format!("{shown}/{name}"));
        let is_allowed = radio.is_some_and(|(_, _, radio)| allowed.contains(radio));
        let file = format!("{CLASS}/{name}/soft");
        let Some(soft) = read("soft") else {
            items.push(item.actual("the kernel does not tell", Verdict::Unknown));
            continue;
        };
        let hard = match read("hard").as_deref() {
            Some("1") => ", and switched off by hand",
            _ => "",
        };
        let stands = if soft == "1" { "blocked" } else { "may send" };
        let item = item.actual(format!("{stands}{hard}"), same(is_allowed || soft == "1"));
        items.push(match is_allowed {
            // Whether one that may send does is not for this document.
            true => item.declared("may send"),
            false => item
                .declared("blocked")
                .how(format!("written to /{file}"))
                .breaks("connections by this radio")
                .turn(Knob::File(file), soft, "1", Undo::Now),
        });
    }
    if items.is_empty() {
        let item = Item::new(Section::Radios, "rfkill").declared("radios are blocked");
        let has_class = place.is_there(CLASS);
        items.push(match (has_class, wireless(place)) {
            (_, Some(name)) => item
                .actual(
                    format!("{name} is a radio that the kernel does not switch"),
                    Verdict::Drift,
                )
                .how("not by Kakoi: the kernel lacks RFKILL"),
            (true, None) => item.actual("there is no radio here", Verdict::Ok),
            (false, None) => item.actual("the kernel tells of no radios", Verdict::Unknown),
        });
    }
    items
}

fn wireless(place: &Place) -> Option<String> {
    let names = place.names("sys/class/net").into_iter();
    let mut found = names.filter(|name| {
        ["wireless", "phy80211"]
            .iter()
            .any(|mark| place.is_there(&format!("sys/class/net/{name}/{mark}")))
    });
    found.next()
}

/// Everything about interfaces but those of the group that is Kakoi's own.
pub(super) fn links(lockdown: &Lockdown, place: &Place, own_group: u32) -> Vec<Item> {
    const CLASS: &str = "sys/class/net";
    const IFF_UP: u64 = 1;
    let Some(allowed) = lockdown.links.only() else {
        return Vec::new();
    };
    let names = place.names(CLASS);
    if names.is_empty() {
        return vec![Item::new(Section::Links, "interfaces").actual("/sys cannot be read", Verdict::Unknown)];
    }
    let is_own = |name: &String| {
        let group = place.word(&format!("{CLASS}/{name}/netdev_group"));
        group.and_then(|group| group.parse::<u32>().ok()) == Some(own_group)
    };
    // Files among them are settings of bonding.
    let judged = names
        .iter()
        .filter(|name| *name != "lo" && !is_own(name) && place.is_there(&format!("{CLASS}/{name}/ifindex")));
    judged
        .map(|name| {
            let item = Item::new(Section::Links, name);
            let flags = place.word(&format!("{CLASS}/{name}/flags"));
            let flags = flags.and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
            let Some(flags) = flags else {
                return item.actual("the kernel does not tell", Verdict::Unknown);
            };
            let is_up = flags & IFF_UP != 0;
            let stands = if is_up { "up" } else { "down" };
            let is_allowed = allowed.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(front) => name.starts_with(front),
                None => name == pattern,
            });
            match is_allowed {
                true => item.declared("may be up").actual(stands, Verdict::Ok),
                false => item
                    .declared("down")
                    .actual(stands, same(!is_up))
                    .how("taken down")
                    .breaks("everything that goes by this interface, your own connection if it does")
                    .turn(Knob::Link(name.clone()), stands, "down", Undo::Now),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A keyboard with a disk in it.
    pub const DEVICE: [u8; 18] = [18, 1, 0, 2, 0, 0, 0, 64, 0x03, 0x04, 0x01, 0x60, 0, 1, 1, 2, 3, 1];
    const CONFIGURATION: [u8; 9] = [9, 2, 27, 0, 2, 1, 0, 0x80, 50];

    fn interface(class: u8) -> [u8; 9] {
        [9, 4, 0, 0, 0, class, 0, 0, 0]
    }

    #[test]
    fn classes_of_all_interfaces_count() {
        let both = [&DEVICE[..], &CONFIGURATION, &interface(3), &interface(8)].concat();
        assert_eq!(classes(&both), Some(vec![3, 8]));
        for at in 0..both.len() {
            // A device that breaks off says nothing, or less; it is never of no class and let in.
            let said = classes(&both[..at]);
            assert!(said.is_none_or(|classes| classes == [3]), "{at}");
        }
        for bad in [
            vec![0, 0],
            vec![1],
            [&DEVICE[..], &[0, 4]].concat(),
            [&DEVICE[..], &[5, 4, 0, 0, 0]].concat(),
        ] {
            assert_eq!(classes(&bad), None);
        }
    }

    #[test]
    fn a_device_is_let_in_by_all_that_it_is() {
        let told = |classes: &[u8], serial: Option<&str>| Told {
            vendor: 0x0403,
            product: 0x6001,
            serial: serial.map(str::to_owned),
            classes: classes.to_vec(),
        };
        let (hid, storage) = (Usb::Class(3), Usb::Class(8));
        let named = |serial: Option<&str>| Usb::Device {
            vendor: 0x0403,
            product: 0x6001,
            serial: serial.map(str::to_owned),
        };
        let other = Usb::Device {
            vendor: 0x0403,
            product: 0x6002,
            serial: None,
        };
        for (told, declared, is_in) in [
            (told(&[3], None), vec![hid.clone()], true),
            (told(&[3, 8], None), vec![hid.clone()], false),
            (told(&[3, 8], None), vec![hid.clone(), storage.clone()], true),
            (told(&[], None), vec![hid.clone(), storage.clone()], false),
            (told(&[3], None), Vec::new(), false),
            (told(&[0xff], None), vec![named(None)], true),
            (told(&[0xff], Some("A1")), vec![named(Some("A1"))], true),
            (told(&[0xff], Some("A2")), vec![named(Some("A1"))], false),
            (told(&[0xff], None), vec![named(Some("A1"))], false),
            (told(&[0xff], None), vec![other], false),
        ] {
            assert_eq!(is_declared(&told, &declared), is_in, "{told:?} {declared:?}");
        }
    }
}
