//! Changing limits from an OCI `resources` object (config-linux.md), which says more than a plan does.
//!
//! Owns the translation of OCI resources (config-linux.md) into files of either version, as a pure list, and the order in which they are written.
//! Invariant: what is asked for is written or is an error.

use kakoi_policy::kernel::CgroupMode;
use serde_json::Value;

use super::{Cgroup, CgroupError, read_if_there, write};

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: String,
    value: String,
}

impl Cgroup {
    /// Changes the limits of an OCI `resources` object.
    pub fn update_oci(&self, resources: &Value) -> Result<(), CgroupError> {
        let settings = match self.mode {
            CgroupMode::V2 => settings_v2(resources)?,
            CgroupMode::V1 | CgroupMode::Hybrid => settings_v1(resources)?,
        };
        for setting in self.ordered(settings)? {
            let folder = self.folder(setting.controller).ok_or(CgroupError::NoController {
                controller: setting.controller,
                limit: "this update",
            })?;
            write(&folder.join(&setting.file), &setting.value)?;
        }
        Ok(())
    }

    /// Tells whether the group, which is made, has the controllers of an OCI `resources` object.
    pub(crate) fn can_hold(&self, resources: &Value) -> Result<(), CgroupError> {
        let wanted: Vec<&'static str> = match self.mode {
            CgroupMode::V2 => settings_v2(resources)?
                .iter()
                .filter_map(unified_controller)
                .collect(),
            CgroupMode::V1 | CgroupMode::Hybrid => settings_v1(resources)?
                .iter()
                .map(|setting| setting.controller)
                .collect(),
        };
        let unified = self
            .unified()
            .map(|folder| read_if_there(&folder.join("cgroup.controllers")));
        let unified = unified.transpose()?.flatten();
        let is_there = |controller: &str| match &unified {
            Some(has) => has.split_whitespace().any(|name| name == controller),
            None => self.folder(controller).is_some(),
        };
        match wanted.into_iter().find(|controller| !is_there(controller)) {
            None => Ok(()),
            Some(controller) => Err(CgroupError::NoController {
                controller,
                limit: "a limit of this container",
            }),
        }
    }

    /// Version 1 holds memory below memory and swap together at each moment: the one that grows is written first.
    fn ordered(&self, mut settings: Vec<Setting>) -> Result<Vec<Setting>, CgroupError> {
        let place =
            |settings: &[Setting], file: &str| settings.iter().position(|setting| setting.file == file);
        let memory = place(&settings, "memory.limit_in_bytes");
        let both = place(&settings, "memory.memsw.limit_in_bytes");
        if let (Some(memory), Some(both)) = (memory, both)
            && let Some(folder) = self.folder("memory")
        {
            let current = read_if_there(&folder.join("memory.memsw.limit_in_bytes"))?;
            let current: u64 = current.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            let wanted = settings[both]
                .value
                .parse::<i64>()
                .map_or(u64::MAX, |n| u64::try_from(n).unwrap_or(u64::MAX));
            if wanted > current {
                settings.swap(memory, both);
            }
        }
        Ok(settings)
    }
}

/// Whose a file of version 2 is: the word before its first point.
fn unified_controller(setting: &Setting) -> Option<&'static str> {
    let word = setting.file.split('.').next();
    let known = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"];
    known.into_iter().find(|name| Some(*name) == word)
}

/// A number of a section, or `None`.
fn number(resources: &Value, section: &str, field: &str) -> Result<Option<i64>, CgroupError> {
    match resources.get(section).and_then(|section| section.get(field)) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_i64()
            .or_else(|| value.as_u64().map(|_| i64::MAX))
            .map(Some)
            .ok_or_else(|| CgroupError::Value {
                field: format!("{section}.{field}"),
            }),
    }
}

fn text<'a>(resources: &'a Value, section: &str, field: &str) -> Option<&'a str> {
    resources
        .get(section)?
        .get(field)?
        .as_str()
        .filter(|text| !text.is_empty())
}

fn settings_v1(resources: &Value) -> Result<Vec<Setting>, CgroupError> {
    let mut list = Vec::new();
    let mut put = |controller: &'static str, file: &str, value: String| {
        list.push(Setting {
            controller,
            file: file.to_owned(),
            value,
        });
    };
    for (section, field, controller, file) in [
        ("memory", "limit", "memory", "memory.limit_in_bytes"),
        ("memory", "swap", "memory", "memory.memsw.limit_in_bytes"),
        ("memory", "reservation", "memory", "memory.soft_limit_in_bytes"),
        ("memory", "kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes"),
        ("memory", "swappiness", "memory", "memory.swappiness"),
        ("cpu", "shares", "cpu", "cpu.shares"),
        // The period first: a quota is judged against it.
        ("cpu", "period", "cpu", "cpu.cfs_period_us"),
        ("cpu", "quota", "cpu", "cpu.cfs_quota_us"),
        ("cpu", "burst", "cpu", "cpu.cfs_burst_us"),
        ("cpu", "idle", "cpu", "cpu.idle"),
        ("cpu", "realtimePeriod", "cpu", "cpu.rt_period_us"),
        ("cpu", "realtimeRuntime", "cpu", "cpu.rt_runtime_us"),
        ("blockIO", "weight", "blkio", "blkio.weight"),
    ] {
        if let Some(value) = number(resources, section, field)? {
            // 0 means "as it was" where it could mean nothing else.
            if value != 0 || matches!(field, "swappiness" | "burst" | "idle") {
                put(controller, file, value.to_string());
            }
        }
    }
    if let Some(value) = number(resources, "pids", "limit")? {
        put(
            "pids",
            "pids.max",
            if value <= 0 {
                "max".into()
            } else {
                value.to_string()
            },
        );
    }
    for (field, file) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
        if let Some(value) = text(resources, "cpu", field) {
            put("cpuset", file, value.to_owned());
        }
    }
    if let Some(off) = resources
        .get("memory")
        .and_then(|memory| memory.get("disableOOMKiller"))
        .and_then(Value::as_bool)
    {
        put("memory", "memory.oom_control", u8::from(off).to_string());
    }
    for (field, file) in [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
    ] {
        for (device, rate) in rates(resources, field)? {
            put("blkio", file, format!("{device} {rate}"));
        }
    }
    Ok(list)
}

fn settings_v2(resources: &Value) -> Result<Vec<Setting>, CgroupError> {
    let mut list = Vec::new();
    memory_v2(resources, &mut list)?;
    cpu_v2(resources, &mut list)?;
    rest_v2(resources, &mut list)?;
    Ok(list)
}

/// A value for one file of the unified hierarchy.
fn unified(file: &str, value: String) -> Setting {
    Setting {
        controller: "",
        file: file.to_owned(),
        value,
    }
}

fn max(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

fn memory_v2(resources: &Value, list: &mut Vec<Setting>) -> Result<(), CgroupError> {
    let mut put = |file: &str, value: String| list.push(unified(file, value));
    let limit = number(resources, "memory", "limit")?.filter(|n| *n != 0);
    if let Some(swap) = number(resources, "memory", "swap")?.filter(|n| *n != 0) {
        // Version 2 counts swap alone.
        let alone = if swap < 0 {
            -1
        } else {
            (swap - limit.unwrap_or(0)).max(0)
        };
        put("memory.swap.max", max(alone));
    }
    if let Some(limit) = limit {
        put("memory.max", max(limit));
    }
    if let Some(value) = number(resources, "memory", "reservation")?.filter(|n| *n != 0) {
        put("memory.low", max(value));
    }
    Ok(())
}

fn cpu_v2(resources: &Value, list: &mut Vec<Setting>) -> Result<(), CgroupError> {
    let mut put = |file: &str, value: String| list.push(unified(file, value));
    if let Some(shares) = number(resources, "cpu", "shares")?.filter(|n| *n > 0) {
        put("cpu.weight", weight(shares.unsigned_abs()).to_string());
    }
    let (quota, period) = (
        number(resources, "cpu", "quota")?,
        number(resources, "cpu", "period")?.filter(|n| *n > 0),
    );
    if quota.is_some_and(|n| n != 0) || period.is_some() {
        let quota = quota.filter(|n| *n != 0).map_or("max".to_owned(), max);
        put(
            "cpu.max",
            period.map_or(quota.clone(), |period| format!("{quota} {period}")),
        );
    }
    for (field, file) in [("burst", "cpu.max.burst"), ("idle", "cpu.idle")] {
        if let Some(value) = number(resources, "cpu", field)? {
            put(file, value.to_string());
        }
    }
    for (field, file) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
        if let Some(value) = text(resources, "cpu", field) {
            put(file, value.to_owned());
        }
    }
    Ok(())
}

fn rest_v2(resources: &Value, list: &mut Vec<Setting>) -> Result<(), CgroupError> {
    let mut put = |file: &str, value: String| list.push(unified(file, value));
    if let Some(value) = number(resources, "pids", "limit")? {
        put(
            "pids.max",
            if value <= 0 {
                "max".into()
            } else {
                value.to_string()
            },
        );
    }
    if let Some(value) = number(resources, "blockIO", "weight")?.filter(|n| *n > 0) {
        put("io.weight", (1 + (value - 10).max(0) * 9999 / 990).to_string());
    }
    for (field, key) in [
        ("throttleReadBpsDevice", "rbps"),
        ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"),
        ("throttleWriteIOPSDevice", "wiops"),
    ] {
        for (device, rate) in rates(resources, field)? {
            put("io.max", format!("{device} {key}={rate}"));
        }
    }
    if let Some(given) = resources.get("unified").and_then(Value::as_object) {
        for (file, value) in given {
            let value = value.as_str().filter(|_| !file.contains('/'));
            put(
                file,
                value
                    .ok_or_else(|| CgroupError::Value {
                        field: format!("unified.{file}"),
                    })?
                    .to_owned(),
            );
        }
    }
    Ok(())
}

fn rates(resources: &Value, field: &str) -> Result<Vec<(String, u64)>, CgroupError> {
    let list = resources
        .get("blockIO")
        .and_then(|section| section.get(field))
        .and_then(Value::as_array);
    let malformed = || CgroupError::Value {
        field: format!("blockIO.{field}"),
    };
    list.map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|entry| {
            let number = |name: &str| entry.get(name).and_then(Value::as_u64).ok_or_else(malformed);
            Ok((
                format!("{}:{}", number("major")?, number("minor")?),
                number("rate")?,
            ))
        })
        .collect()
}

/// Version 1's shares (2 to 262144, 1024 usual) as version 2's weight (1 to 10000, 100 usual): the linear map of the two ranges.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(settings: &[Setting], file: &str, value: &str) {
        let found = settings
            .iter()
            .find(|setting| setting.file == file)
            .map(|setting| setting.value.as_str());
        assert_eq!(found, Some(value), "{file} in {settings:?}");
    }

    #[test]
    fn resources_become_files_of_either_version() {
        let resources = json!({
            "memory": {"limit": 64 << 20, "swap": 96 << 20},
            "cpu": {"shares": 2, "quota": 50_000, "period": 100_000},
            "pids": {"limit": -1},
        });
        let v1 = settings_v1(&resources).expect("translated");
        check(&v1, "memory.limit_in_bytes", "67108864");
        check(&v1, "memory.memsw.limit_in_bytes", "100663296");
        check(&v1, "pids.max", "max");
        let v2 = settings_v2(&resources).expect("translated");
        check(&v2, "memory.swap.max", "33554432");
        check(&v2, "cpu.max", "50000 100000");
        check(&v2, "cpu.weight", "1");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(settings_v1(&json!({"memory": {"limit": "much"}})).is_err());
        assert!(settings_v2(&json!({"unified": {"../x": "1"}})).is_err());
    }
}
