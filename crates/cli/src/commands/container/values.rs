//! Small notations inside `run`'s flags, understood: ulimits, devices, rates, GPUs, restart policies.

use api::container::{
    DeviceMapping, DeviceRequest, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice,
};
use stdx::{Error, Result};

const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `nofile=1024:2048`.
pub(super) fn ulimit(value: &str) -> Result<Ulimit> {
    let (name, limits) = value
        .split_once('=')
        .ok_or_else(|| Error::invalid(format!("invalid ulimit argument: {value}")))?;
    if !ULIMITS.contains(&name) {
        return Err(Error::invalid(format!("invalid ulimit type: {name}")));
    }
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(Error::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

fn number(text: &str) -> Result<i64> {
    text.parse()
        .map_err(|_| Error::invalid(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
}

pub(super) fn plain_number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::invalid("not a number"))
}

fn device_path(value: &str) -> Result<(&str, &str)> {
    let (path, rest) =
        value.split_once(':').ok_or_else(|| Error::invalid(format!("bad format: {value}")))?;
    match path.starts_with("/dev/") {
        true => Ok((path, rest)),
        false => Err(Error::invalid(format!("bad format for device path: {value}"))),
    }
}

/// `/dev/sda:200`.
pub(super) fn weight_device(value: &str) -> Result<WeightDevice> {
    let (path, weight) = device_path(value)?;
    let weight: u16 = weight
        .parse()
        .ok()
        .filter(|weight| *weight == 0 || (10..=1000).contains(weight))
        .ok_or_else(|| Error::invalid(format!("invalid weight for device: {value}")))?;
    Ok(WeightDevice { path: path.to_owned(), weight })
}

/// `/dev/sda:1mb`, the number being read by `parse`.
pub(super) fn throttle(value: &str, parse: fn(&str) -> Result<i64>) -> Result<ThrottleDevice> {
    let (path, rate) = device_path(value)?;
    let rate = parse(rate).ok().and_then(|rate| u64::try_from(rate).ok()).ok_or_else(|| {
        Error::invalid(format!(
            "invalid rate for device: {value}. The correct format is <device-path>:<number>[<unit>]. Number must be a \
             positive integer. Unit is optional and can be kb, mb, or gb"
        ))
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// `/dev/x[:/dev/y][:rwm]`.
pub(super) fn device(value: &str) -> Result<DeviceMapping> {
    let parts: Vec<&str> = value.split(':').collect();
    let is_mode =
        |text: &str| !text.is_empty() && text.bytes().all(|c| matches!(c, b'r' | b'w' | b'm'));
    let (host, inside, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if is_mode(mode) => (*host, *host, *mode),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, mode] => (*host, *inside, *mode),
        _ => return Err(Error::invalid(format!("invalid device specification: {value}"))),
    };
    if !is_mode(mode) {
        return Err(Error::invalid(format!("bad mode specified: {mode}")));
    }
    if !inside.starts_with('/') {
        return Err(Error::invalid(format!("{inside} is not an absolute path")));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

/// Whether a device is a CDI name (`vendor.com/class=name`), not a path.
pub(super) fn is_cdi(value: &str) -> bool {
    let Some((kind, name)) = value.split_once('=') else { return false };
    !kind.starts_with('/') && kind.contains('/') && !name.is_empty()
}

pub(super) fn cdi(names: Vec<String>) -> DeviceRequest {
    DeviceRequest { driver: "cdi".to_owned(), device_ids: Some(names), ..DeviceRequest::default() }
}

/// `all`, `2`, `"device=0,1",capabilities=…`.
pub(super) fn gpus(value: &str) -> Result<DeviceRequest> {
    let count = |text: &str| match text {
        "all" => Ok(-1),
        text => text.parse::<i64>().map_err(|_| {
            Error::invalid(format!(
                "invalid count ({text}): value must be either \"all\" or an integer: invalid syntax"
            ))
        }),
    };
    let mut request = DeviceRequest { count: 0, ..DeviceRequest::default() };
    let mut capabilities = vec!["gpu".to_owned()];
    let mut counted = false;
    for field in super::mounts::fields(value)? {
        let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        match field.split_once('=') {
            None => {
                request.count = count(&field)?;
                counted = true;
            }
            Some(("driver", driver)) => request.driver = driver.to_owned(),
            Some(("count", text)) => {
                request.count = count(text)?;
                counted = true;
            }
            Some(("device", devices)) => request.device_ids = Some(words(devices)),
            Some(("capabilities", list)) => capabilities.extend(words(list)),
            Some(("options", list)) => {
                let pairs = words(list);
                let pairs = pairs.iter().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
                request.options = Some(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
            }
            Some((key, _)) => {
                return Err(Error::invalid(format!("unexpected key '{key}' in '{field}'")));
            }
        }
    }
    if !counted && request.device_ids.is_none() {
        request.count = 1;
    }
    request.capabilities = Some(vec![capabilities]);
    Ok(request)
}

/// `no`, `always`, `on-failure:3`.
pub(super) fn restart_policy(value: &str) -> Result<RestartPolicy> {
    let (name, count) = value.split_once(':').unwrap_or((value, ""));
    if value.contains(':') && name.is_empty() {
        return Err(Error::invalid(
            "invalid restart policy format: no policy provided before colon",
        ));
    }
    let maximum_retry_count = match count {
        "" => 0,
        count => count.parse().map_err(|_| {
            Error::invalid("invalid restart policy format: maximum retry count must be an integer")
        })?,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations() {
        assert_eq!(
            ulimit("nofile=1:2").unwrap(),
            Ulimit { name: "nofile".into(), soft: 1, hard: 2 }
        );
        assert_eq!(ulimit("x").unwrap_err().to_string(), "invalid ulimit argument: x");
        assert_eq!(throttle("x", plain_number).unwrap_err().to_string(), "bad format: x");
        assert_eq!(device("/dev/a:/dev/b:r").unwrap().cgroup_permissions, "r");
        assert_eq!(device("/dev/a:r").unwrap().path_in_container, "/dev/a");
        assert_eq!(gpus("all").unwrap().count, -1);
        assert_eq!(gpus("\"device=0,1\"").unwrap().device_ids.unwrap(), ["0", "1"]);
        assert_eq!(restart_policy("on-failure:3").unwrap().maximum_retry_count, 3);
        assert!(restart_policy(":3").is_err());
    }
}
