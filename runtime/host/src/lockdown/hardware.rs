//! What only the hardware decides. It is read where the kernel shows it; nothing here is ever enforced.
//!
//! Invariant: without evidence the verdict is unknown. That a file is missing is no evidence.

use kakoi_policy::host::lockdown::Section;

use super::item::{Item, Verdict, same};
use super::place::Place;

/// Source: UEFI 2.10, section 3.3; the first four bytes of the file are attributes.
const SECURE_BOOT: &str = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Everything about hardware.
pub(super) fn items(place: &Place) -> Vec<Item> {
    const HOW: &str = "by the hardware and its maker alone";
    let boot = Item::new(Section::Hardware, "secure_boot").declared("on");
    let boot = match place.bytes(SECURE_BOOT).ok().flatten().as_deref() {
        Some([_, _, _, _, on]) => {
            let said = if *on == 1 { "on" } else { "off" };
            boot.actual(format!("the firmware says {said}"), same(*on == 1))
        }
        _ => boot.actual(
            "the firmware tells nothing that the kernel shows; ask the maker for the state of its fuses",
            Verdict::Unknown,
        ),
    };
    let trusted = place.names("sys/class/tee");
    let tee = Item::new(Section::Hardware, "op_tee").declared("there");
    let tee = match trusted.iter().find(|name| name.starts_with("tee")) {
        Some(name) => tee.actual(
            format!("/dev/{name} answers; whether what runs behind it is the maker's is not told"),
            Verdict::Unknown,
        ),
        None => tee.actual("the kernel tells of none", Verdict::Unknown),
    };
    let untold = [
        (
            "jtag",
            "locked",
            "no kernel tells: ask the maker for the state of the debug fuses, and try a probe",
        ),
        (
            "sd_boot",
            "off",
            "no kernel tells what the boot ROM would start from: ask the maker, and try a card",
        ),
    ];
    let untold = untold.map(|(name, declared, actual)| {
        Item::new(Section::Hardware, name)
            .declared(declared)
            .actual(actual, Verdict::Unknown)
    });
    let all = [boot, tee].into_iter().chain(untold);
    all.map(|item| item.how(HOW)).collect()
}
