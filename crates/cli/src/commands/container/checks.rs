//! What the values of `run`'s flags must look like: refused at the flag, in Docker's words.

use std::net::IpAddr;

use stdx::{Error, Result, units};

pub(super) fn attach(value: &str) -> Result<()> {
    match value.to_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err(Error::invalid("valid streams are STDIN, STDOUT and STDERR")),
    }
}

pub(super) fn secret(value: &str) -> Result<()> {
    super::references::secret(value).map(drop)
}

pub(super) fn config(value: &str) -> Result<()> {
    super::references::config(value).map(drop)
}

pub(super) fn env(value: &str) -> Result<()> {
    match value.split('=').next() {
        Some("") => Err(Error::invalid(format!("invalid environment variable: {value}"))),
        _ => Ok(()),
    }
}

pub(super) fn label(value: &str) -> Result<()> {
    match value.split('=').next().map(str::trim) {
        Some("") => Err(Error::invalid(format!("invalid label '{value}': empty name"))),
        _ => Ok(()),
    }
}

pub(super) fn ip(value: &str) -> Result<()> {
    let address: Result<IpAddr, _> = value.trim().parse();
    address
        .map(drop)
        .map_err(|_| Error::invalid(format!("IP address is not correctly formatted: {value}")))
}

pub(super) fn dns_search(value: &str) -> Result<()> {
    let value = value.trim();
    let right = !value.is_empty()
        && value.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_'));
    match right {
        true => Ok(()),
        false => Err(Error::invalid(format!("{value} is not a valid domain"))),
    }
}

pub(super) fn add_host(value: &str) -> Result<()> {
    let pair = value.split_once('=').or_else(|| value.split_once(':'));
    let Some((_, address)) = pair.filter(|(host, _)| !host.is_empty()) else {
        return Err(Error::invalid(format!("bad format for add-host: {value:?}")));
    };
    let address =
        address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if address == "host-gateway" || address.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid IP address in add-host: {address:?}")))
}

pub(super) fn sysctl(value: &str) -> Result<()> {
    const KNOWN: [&str; 10] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "net.",
        "fs.mqueue.",
    ];
    let allowed = value.split_once('=').is_some_and(|(key, _)| {
        KNOWN
            .iter()
            .any(|known| if known.ends_with('.') { key.starts_with(known) } else { key == *known })
    });
    match allowed {
        true => Ok(()),
        false => Err(Error::invalid(format!("sysctl '{value}' is not allowed"))),
    }
}

pub(super) fn ulimit(value: &str) -> Result<()> {
    super::values::ulimit(value).map(drop)
}

pub(super) fn gpus(value: &str) -> Result<()> {
    super::values::gpus(value).map(drop)
}

pub(super) fn mount(value: &str) -> Result<()> {
    super::mounts::mount(value).map(drop)
}

pub(super) fn weight_device(value: &str) -> Result<()> {
    super::values::weight_device(value).map(drop)
}

pub(super) fn rate(value: &str) -> Result<()> {
    super::values::throttle(value, units::ram_in_bytes).map(drop)
}

pub(super) fn iops(value: &str) -> Result<()> {
    super::values::throttle(value, super::values::plain_number).map(drop)
}
