//! How values are written, and what is wrong with those that are written otherwise.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use runtime::cgroup::Driver;
use stdx::{Context, Error, Result};

/// Other processes of ours are told of it, and they are elsewhere.
pub(super) fn absolute(value: &str) -> Result<PathBuf> {
    std::path::absolute(value).context(|| format!("{value:?} is no directory"))
}

pub(super) fn two(value: &str) -> Result<(&str, &str)> {
    value.split_once('=').ok_or_else(|| Error::invalid("it is not of the form key=value"))
}

pub(super) fn switch(value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid("it is neither true nor false")),
    }
}

pub(super) fn number<T: std::str::FromStr>(value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::invalid("it is not a number that fits"))
}

pub(super) fn address(value: &str) -> Result<Ipv4Addr> {
    value.parse().map_err(|_| Error::invalid("it is not an IPv4 address"))
}

pub(super) fn address_pool(value: &str) -> Result<(String, u8)> {
    let mut base = None;
    let mut size = None;
    for part in value.split(',') {
        match part.split_once('=') {
            Some(("base", text)) => base = Some(text.to_owned()),
            Some(("size", text)) => size = Some(number(text)?),
            _ => return Err(Error::invalid("it is not of the form base=CIDR,size=BITS")),
        }
    }
    base.zip(size).ok_or_else(|| Error::invalid("it is not of the form base=CIDR,size=BITS"))
}

pub(super) fn ulimit(value: &str) -> Result<(String, i64, i64)> {
    let (name, limits) = two(value)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    Ok((name.to_owned(), number(soft)?, number(hard)?))
}

/// `None` where nobody chose a driver.
pub(super) fn exec_opt(value: &str) -> Result<Option<Driver>> {
    let (name, chosen) = value.split_once('=').unwrap_or((value, ""));
    let (name, chosen) = (name.trim().to_ascii_lowercase(), chosen.trim());
    if name.is_empty() || chosen.is_empty() {
        return Err(Error::invalid(format!(
            "invalid exec-opt ({value}): must be formatted 'opt=value'"
        )));
    }
    let why = match name.as_str() {
        "native.cgroupdriver" => return cgroup_driver(chosen).map(Some),
        "isolation" => "option 'isolation' is only supported on windows".to_owned(),
        _ => format!("unknown option: '{name}'"),
    };
    Err(Error::invalid(format!("invalid exec-opt ({value}): {why}")))
}

/// One that says what another has said already is not kept twice; one that says otherwise is refused.
pub(super) fn label(labels: &mut Vec<String>, new: &str) -> Result<()> {
    let bad = || Error::invalid(format!("bad attribute format: {new}"));
    let (name, value) = new.split_once('=').ok_or_else(bad)?;
    let other =
        labels.iter().filter_map(|label| label.split_once('=')).find(|(one, _)| *one == name);
    match other {
        None => labels.push(new.to_owned()),
        Some((_, same)) if same == value => {}
        Some((_, other)) => {
            return Err(Error::invalid(format!(
                "conflict labels for {name}={value} and {name}={other}"
            )));
        }
    }
    Ok(())
}

/// How many of something there may be at a time; zero leaves it to us.
pub(super) fn at_most<T: TryFrom<i64>>(value: &str, what: &str, usual: i64) -> Result<T> {
    let invalid = || Error::invalid(format!("invalid {what}: {value}"));
    let wanted: i64 = number(value)?;
    T::try_from(if wanted == 0 { usual } else { wanted }).map_err(|_| invalid())
}

pub(super) fn ipc_mode(mode: &str) -> Result<String> {
    let hint = "use \"shareable\" or \"private\"";
    match mode {
        "" | "shareable" | "private" => Ok(mode.to_owned()),
        "host" | "none" => Err(Error::invalid(format!(
            "IPC mode \"{mode}\" is not supported as default value; {hint}"
        ))),
        _ if mode.starts_with("container:") => Err(Error::invalid(format!(
            "IPC mode \"{mode}\" is not supported as default value; {hint}"
        ))),
        _ => Err(Error::invalid(format!("default IPC mode setting ({mode}) is invalid; {hint}"))),
    }
}

fn cgroup_driver(name: &str) -> Result<Driver> {
    match name {
        "cgroupfs" => Ok(Driver::Cgroupfs),
        "systemd" => Ok(Driver::Systemd),
        "none" => Err(Error::invalid(
            "native.cgroupdriver option none is internally used and cannot be specified manually",
        )),
        _ => Err(Error::invalid(format!("native.cgroupdriver option {name} not supported"))),
    }
}
