//! The flags of `run` and `create` become the body of `POST /containers/create`. Decides; asks nobody but the files the
//! flags name and our own environment.

use std::collections::{BTreeMap, BTreeSet};

use api::container::{
    Config, CreateBody, HealthConfig, HostConfig, LogConfig, NetworkingConfig, Resources,
    RestartPolicy,
};
use api::network::{EndpointIpamConfig, EndpointSettings};
use stdx::{Error, Result, duration, units};

use super::mounts::{self, Volume};
use super::ports::Ports;
use super::{files, rate, references, values};
use crate::commands::egress;
use crate::flags::{self, Parsed};

/// Whether the container's streams are wanted by this command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    Foreground,
    Detached,
}

pub(super) fn body(flags: &Parsed, attachment: Attachment) -> Result<CreateBody> {
    let (image, command) =
        flags.args.split_first().ok_or_else(|| Error::invalid("an image is required"))?;
    check_modes(flags)?;
    let ports = Ports::of(&flags.list("publish"), &flags.list("expose"))?;
    let networks = networks(flags)?;
    let (binds, volumes) = volumes(flags)?;
    let config = Config {
        hostname: flags.text("hostname").to_owned(),
        domainname: flags.text("domainname").to_owned(),
        user: flags.text("user").to_owned(),
        exposed_ports: ports.exposed,
        tty: flags.on("tty"),
        open_stdin: flags.on("interactive"),
        env: Some(files::environment(&flags.list("env-file"), &flags.list("env"))?),
        cmd: (!command.is_empty()).then(|| command.to_vec()),
        healthcheck: healthcheck(flags)?,
        image: image.clone(),
        volumes: Some(volumes),
        working_dir: flags.text("workdir").to_owned(),
        entrypoint: flags.get("entrypoint").map(|entrypoint| vec![entrypoint.to_owned()]),
        mac_address: flags.text("mac-address").to_owned(),
        labels: Some(
            files::labels(&flags.list("label-file"), &flags.list("label"))?.into_iter().collect(),
        ),
        stop_signal: flags.text("stop-signal").to_owned(),
        stop_timeout: flags.int("stop-timeout"),
        ..streams(flags, attachment)
    };
    let mut host = host_config(flags)?;
    host.binds = list(binds);
    host.port_bindings = Some(ports.bindings);
    host.network_mode = networks.mode;
    if config.tty
        && attachment == Attachment::Foreground
        && let Some((rows, columns)) = crate::tty::size()
    {
        host.console_size = [u32::from(rows), u32::from(columns)];
    }
    Ok(CreateBody {
        config,
        host_config: Some(host),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(networks.endpoints) }),
    })
}

/// Which of the container's streams this command holds.
fn streams(flags: &Parsed, attachment: Attachment) -> Config {
    if attachment == Attachment::Detached {
        return Config::default();
    }
    let given: Vec<String> =
        flags.list("attach").iter().map(|stream| stream.to_lowercase()).collect();
    let has = |stream: &str| given.iter().any(|known| known == stream);
    let stdin = flags.on("interactive") || has("stdin");
    let (stdout, stderr) =
        if given.is_empty() { (true, true) } else { (has("stdout"), has("stderr")) };
    Config {
        attach_stdin: stdin,
        attach_stdout: stdout,
        attach_stderr: stderr,
        // Only a stdin that somebody holds can be closed by their leaving.
        stdin_once: flags.on("interactive") && stdin,
        ..Config::default()
    }
}

/// `keep-id` means the person who says it, whom the daemon may never have met.
fn userns(mode: &str) -> String {
    let options = mode.strip_prefix("keep-id").map(|rest| rest.trim_start_matches(':'));
    match options {
        Some(options) if !options.split(',').any(|option| option.starts_with("uid=")) => {
            let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
            let rest = if options.is_empty() { String::new() } else { format!(",{options}") };
            format!("keep-id:uid={},gid={}{rest}", uid.as_raw(), gid.as_raw())
        }
        _ => mode.to_owned(),
    }
}

fn check_modes(flags: &Parsed) -> Result<()> {
    let container =
        |mode: &str| mode.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    let pid = flags.text("pid");
    if !(pid.is_empty() || pid == "host" || container(pid)) {
        return Err(Error::invalid("--pid: invalid PID mode"));
    }
    if !["", "host"].contains(&flags.text("uts")) {
        return Err(Error::invalid("--uts: invalid UTS mode"));
    }
    let userns = flags.text("userns");
    // `auto` and `keep-id` are ours: a private range of users for the container, and in it whoever asks.
    let mode = userns.split(':').next().unwrap_or_default();
    if !["", "host", "auto", "keep-id"].contains(&mode) || userns.starts_with("host:") {
        return Err(Error::invalid("--userns: invalid USER mode"));
    }
    if !["", "host", "private"].contains(&flags.text("cgroupns")) {
        return Err(Error::invalid("--cgroupns: invalid CGROUP mode"));
    }
    if let Some(swappiness) = flags.int("memory-swappiness")
        && !(-1..=100).contains(&swappiness)
    {
        return Err(Error::invalid(format!(
            "invalid value: {swappiness}. Valid memory swappiness range is 0-100"
        )));
    }
    if flags.on("use-api-socket") {
        return Err(Error::not_implemented("--use-api-socket is not supported yet"));
    }
    Ok(())
}

fn host_config(flags: &Parsed) -> Result<HostConfig> {
    let security = files::security(&flags.list("security-opt"))?;
    let restart_policy = match flags.get("restart") {
        Some(policy) => values::restart_policy(policy)?,
        None => RestartPolicy { name: "no".to_owned(), maximum_retry_count: 0 },
    };
    if flags.on("rm") && !["", "no"].contains(&restart_policy.name.as_str()) {
        return Err(Error::invalid("conflicting options: cannot specify both --restart and --rm"));
    }
    let nothing = || security.open_system_paths.then(Vec::new);
    let text = |name: &str| flags.text(name).to_owned();
    let (cap_add, cap_drop) = capabilities(&flags.list("cap-add"), &flags.list("cap-drop"));
    Ok(HostConfig {
        container_id_file: text("cidfile"),
        log_config: log_config(flags)?,
        restart_policy,
        auto_remove: flags.on("rm"),
        volume_driver: text("volume-driver"),
        volumes_from: owned(flags, "volumes-from"),
        annotations: pairs(flags, "annotation"),
        cap_add: list(cap_add),
        cap_drop: list(cap_drop),
        cgroupns_mode: text("cgroupns"),
        dns: Some(flags.list("dns").iter().map(|ip| ip.trim().to_owned()).collect()),
        dns_options: Some(owned(flags, "dns-option").unwrap_or_default()),
        dns_search: Some(owned(flags, "dns-search").unwrap_or_default()),
        extra_hosts: list(flags.list("add-host").into_iter().map(extra_host).collect()),
        group_add: owned(flags, "group-add"),
        ipc_mode: text("ipc"),
        links: owned(flags, "link"),
        oom_score_adj: flags.int("oom-score-adj").unwrap_or(0),
        pid_mode: text("pid"),
        privileged: flags.on("privileged"),
        publish_all_ports: flags.on("publish-all"),
        readonly_rootfs: flags.on("read-only"),
        security_opt: list(security.options.clone()),
        storage_opt: storage_options(flags)?,
        tmpfs: tmpfs(flags),
        uts_mode: text("uts"),
        userns_mode: userns(flags.text("userns")),
        shm_size: flags.bytes("shm-size").unwrap_or(0),
        sysctls: pairs(flags, "sysctl"),
        runtime: text("runtime"),
        isolation: text("isolation"),
        resources: resources(flags)?,
        secrets: flags.list("secret").into_iter().map(references::secret).collect::<Result<_>>()?,
        configs: flags.list("config").into_iter().map(references::config).collect::<Result<_>>()?,
        mounts: flags.list("mount").into_iter().map(mounts::mount).collect::<Result<_>>()?,
        masked_paths: nothing(),
        readonly_paths: nothing(),
        init: flags.switch("init"),
        egress: egress::rules(flags)?,
        net_rate: flags.get("net-rate").map(rate::parse).transpose()?,
        ..HostConfig::default()
    })
}

/// What `run`, `create` and `update` may limit.
pub(super) fn resources(flags: &Parsed) -> Result<Resources> {
    let int = |name: &str| flags.int(name).unwrap_or(0);
    let text = |name: &str| flags.text(name).to_owned();
    let rates = |name: &str, parse: fn(&str) -> Result<i64>| {
        flags
            .list(name)
            .into_iter()
            .map(|value| values::throttle(value, parse))
            .collect::<Result<Vec<_>>>()
            .map(Some)
    };
    let (cdi, paths): (Vec<&str>, Vec<&str>) =
        flags.list("device").into_iter().partition(|name| values::is_cdi(name));
    let mut requests =
        flags.list("gpus").into_iter().map(values::gpus).collect::<Result<Vec<_>>>()?;
    if !cdi.is_empty() {
        requests.push(values::cdi(cdi.into_iter().map(str::to_owned).collect()));
    }
    Ok(Resources {
        cpu_shares: int("cpu-shares"),
        memory: flags.bytes("memory").unwrap_or(0),
        nano_cpus: flags.get("cpus").map(flags::nano_cpus).transpose()?.unwrap_or(0),
        cgroup_parent: text("cgroup-parent"),
        blkio_weight: u16::try_from(int("blkio-weight")).unwrap_or(0),
        blkio_weight_device: Some(
            flags
                .list("blkio-weight-device")
                .into_iter()
                .map(values::weight_device)
                .collect::<Result<_>>()?,
        ),
        blkio_device_read_bps: rates("device-read-bps", units::ram_in_bytes)?,
        blkio_device_write_bps: rates("device-write-bps", units::ram_in_bytes)?,
        blkio_device_read_iops: rates("device-read-iops", values::plain_number)?,
        blkio_device_write_iops: rates("device-write-iops", values::plain_number)?,
        cpu_period: int("cpu-period"),
        cpu_quota: int("cpu-quota"),
        cpu_realtime_period: int("cpu-rt-period"),
        cpu_realtime_runtime: int("cpu-rt-runtime"),
        cpuset_cpus: text("cpuset-cpus"),
        cpuset_mems: text("cpuset-mems"),
        devices: Some(paths.into_iter().map(values::device).collect::<Result<_>>()?),
        device_cgroup_rules: owned(flags, "device-cgroup-rule"),
        device_requests: list(requests),
        kernel_memory: flags.bytes("kernel-memory").unwrap_or(0),
        memory_reservation: flags.bytes("memory-reservation").unwrap_or(0),
        memory_swap: flags.bytes("memory-swap").unwrap_or(0),
        memory_swappiness: flags.int("memory-swappiness").filter(|value| *value >= 0),
        oom_kill_disable: Some(flags.on("oom-kill-disable")),
        pids_limit: flags.int("pids-limit"),
        ulimits: Some(flags.list("ulimit").into_iter().map(values::ulimit).collect::<Result<_>>()?),
        cpu_count: int("cpu-count"),
        cpu_percent: int("cpu-percent"),
        io_maximum_iops: u64::try_from(int("io-maxiops")).unwrap_or(0),
        io_maximum_bandwidth: flags
            .bytes("io-maxbandwidth")
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or(0),
        ..Resources::default()
    })
}

fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn owned(flags: &Parsed, name: &str) -> Option<Vec<String>> {
    list(flags.list(name).into_iter().map(str::to_owned).collect())
}

fn pairs(flags: &Parsed, name: &str) -> BTreeMap<String, String> {
    flags.map(name).into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What is added and what is dropped, in one spelling. `ALL` speaks for all; what is added is not dropped.
fn capabilities(add: &[&str], drop: &[&str]) -> (Vec<String>, Vec<String>) {
    let spelled = |names: &[&str]| -> BTreeSet<String> {
        let names: BTreeSet<String> = names
            .iter()
            .map(|name| name.trim().to_uppercase())
            .map(|name| match name.as_str() {
                "ALL" | "RESET" => name,
                _ if name.starts_with("CAP_") => name,
                _ => format!("CAP_{name}"),
            })
            .collect();
        match names.contains("ALL") {
            true => BTreeSet::from(["ALL".to_owned()]),
            false => names,
        }
    };
    let (add, drop) = (spelled(add), spelled(drop));
    let drop = drop.difference(&add).cloned().collect();
    (add.into_iter().collect(), drop)
}

/// `name=ip` is written `name:ip` in the request, brackets gone.
fn extra_host(text: &str) -> String {
    let (host, ip) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    let ip = ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(ip);
    format!("{host}:{ip}")
}

fn log_config(flags: &Parsed) -> Result<LogConfig> {
    let driver = flags.text("log-driver");
    let options = pairs(flags, "log-opt");
    if driver == "none" && !options.is_empty() {
        return Err(Error::invalid("invalid logging opts for driver none"));
    }
    Ok(LogConfig { r#type: driver.to_owned(), config: Some(options) })
}

fn storage_options(flags: &Parsed) -> Result<BTreeMap<String, String>> {
    let pair = |text: &str| {
        let (key, value) =
            text.split_once('=').ok_or_else(|| Error::invalid("invalid storage option"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    flags.list("storage-opt").into_iter().map(pair).collect()
}

fn tmpfs(flags: &Parsed) -> BTreeMap<String, String> {
    let pair = |text: &str| {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        (path.to_owned(), options.to_owned())
    };
    flags.list("tmpfs").into_iter().map(pair).collect()
}

fn volumes(flags: &Parsed) -> Result<(Vec<String>, api::Set)> {
    let mut binds = Vec::new();
    let mut anonymous = api::Set::new();
    for text in flags.list("volume") {
        match mounts::volume(text)? {
            Volume::Bind(bind) => binds.push(bind),
            Volume::Anonymous(path) => {
                anonymous.insert(path, api::Empty {});
            }
        }
    }
    Ok((binds, anonymous))
}

fn healthcheck(flags: &Parsed) -> Result<Option<HealthConfig>> {
    const TIMES: [&str; 4] =
        ["health-interval", "health-timeout", "health-start-period", "health-start-interval"];
    let some = flags.given("health-cmd")
        || flags.given("health-retries")
        || flags.given("health-on-failure")
        || TIMES.iter().any(|name| flags.given(name));
    if flags.on("no-healthcheck") {
        if some {
            return Err(Error::invalid("--no-healthcheck conflicts with --health-* options"));
        }
        return Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() }));
    }
    if !some {
        return Ok(None);
    }
    let retries = flags.int("health-retries").unwrap_or(0);
    if retries < 0 {
        return Err(Error::invalid("--health-retries cannot be negative"));
    }
    let time = |name: &str| -> Result<i64> {
        let Some(text) = flags.get(name) else { return Ok(0) };
        i64::try_from(duration::parse(text)?.as_nanos())
            .map_err(|_| Error::invalid(format!("--{name} is too long")))
    };
    let test = match flags.text("health-cmd") {
        "" => Vec::new(),
        command => vec!["CMD-SHELL".to_owned(), command.to_owned()],
    };
    Ok(Some(HealthConfig {
        test,
        interval: time("health-interval")?,
        timeout: time("health-timeout")?,
        start_period: time("health-start-period")?,
        start_interval: time("health-start-interval")?,
        retries,
        on_failure: flags.text("health-on-failure").to_owned(),
    }))
}

struct Networks {
    mode: String,
    endpoints: BTreeMap<String, Option<EndpointSettings>>,
}

/// `--network`, and the flags that speak of the first one.
fn networks(flags: &Parsed) -> Result<Networks> {
    let mut given = flags.list("network").into_iter().map(network).collect::<Result<Vec<_>>>()?;
    if given.is_empty() {
        given.push(("default".to_owned(), EndpointSettings::default()));
    }
    let several = given.len() > 1;
    let mut endpoints = BTreeMap::new();
    let mut mode = String::new();
    for (index, (name, mut endpoint)) in given.into_iter().enumerate() {
        if index == 0 {
            apply_flags(flags, &name, &mut endpoint)?;
            mode.clone_from(&name);
        }
        let is_private = name.starts_with("container:") || name == "host" || name == "none";
        if several && is_private {
            return Err(Error::invalid(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ));
        }
        // A network that is only named needs no settings, unless it is one of several.
        if several || endpoint != EndpointSettings::default() || user_defined(&name) {
            endpoints.insert(name, Some(endpoint));
        }
    }
    Ok(Networks { mode, endpoints })
}

fn user_defined(name: &str) -> bool {
    !matches!(name, "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}

fn apply_flags(flags: &Parsed, name: &str, endpoint: &mut EndpointSettings) -> Result<()> {
    let aliases = flags.list("network-alias");
    if !aliases.is_empty() {
        if !user_defined(name) {
            return Err(Error::invalid(
                "network-scoped aliases are only supported for user-defined networks",
            ));
        }
        if endpoint.aliases.is_some() {
            return Err(Error::invalid(
                "conflicting options: cannot specify both --network-alias and per-network alias",
            ));
        }
        endpoint.aliases = Some(aliases.into_iter().map(str::to_owned).collect());
    }
    if user_defined(name) {
        endpoint.links = owned(flags, "link").or(endpoint.links.take());
    }
    let (v4, v6, local) = (flags.text("ip"), flags.text("ip6"), flags.list("link-local-ip"));
    if !v4.is_empty() || !v6.is_empty() || !local.is_empty() {
        let ipam = endpoint.ipam_config.get_or_insert_default();
        if !v4.is_empty() {
            ipam.ipv4_address = v4.to_owned();
        }
        if !v6.is_empty() {
            ipam.ipv6_address = v6.to_owned();
        }
        ipam.link_local_ips.extend(local.into_iter().map(str::to_owned));
    }
    if flags.given("mac-address") {
        endpoint.mac_address = flags.text("mac-address").to_owned();
    }
    Ok(())
}

/// A name, or `name=n,alias=a,ip=…,driver-opt=k=v`.
fn network(text: &str) -> Result<(String, EndpointSettings)> {
    if !text.contains('=') {
        return Ok((text.to_owned(), EndpointSettings::default()));
    }
    let mut name = String::new();
    let mut endpoint = EndpointSettings::default();
    for field in mounts::fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| {
            Error::invalid(format!("invalid field {field:?}: must be a key=value pair"))
        })?;
        let ipam = |endpoint: &mut EndpointSettings, set: fn(&mut EndpointIpamConfig, String)| {
            set(endpoint.ipam_config.get_or_insert_default(), value.to_owned());
        };
        match key.trim().to_lowercase().as_str() {
            "name" => name = value.to_owned(),
            "alias" => endpoint.aliases.get_or_insert_default().push(value.to_owned()),
            "ip" => ipam(&mut endpoint, |config, value| config.ipv4_address = value),
            "ip6" => ipam(&mut endpoint, |config, value| config.ipv6_address = value),
            "link-local-ip" => {
                ipam(&mut endpoint, |config, value| config.link_local_ips.push(value))
            }
            "mac-address" => endpoint.mac_address = value.to_owned(),
            "gw-priority" => {
                endpoint.gw_priority = value
                    .parse()
                    .map_err(|_| Error::invalid(format!("invalid gw-priority: {value}")))?;
            }
            "driver-opt" => {
                let (key, value) = value.split_once('=').ok_or_else(|| {
                    Error::invalid(format!(
                        "invalid key value pair format in driver options: {value}"
                    ))
                })?;
                endpoint
                    .driver_opts
                    .get_or_insert_default()
                    .insert(key.trim().to_owned(), value.trim().to_owned());
            }
            key => return Err(Error::invalid(format!("invalid field key {key}"))),
        }
    }
    match name.is_empty() {
        true => Err(Error::invalid("network name/id is not specified")),
        false => Ok((name, endpoint)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::create_flags::RUN;
    use super::*;
    use crate::flags::Order;

    fn run(words: &[&str]) -> Result<CreateBody> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let flags = Parsed::parse(&RUN, Order::FlagsFirst, &words)
            .map_err(|stop| panic!("{stop:?}"))
            .unwrap();
        body(&flags, Attachment::Foreground)
    }

    /// Only what differs from a plain `run busybox`.
    fn check(words: &[&str], expected: &str) {
        let plain = serde_json::to_value(run(&["busybox"]).unwrap()).unwrap();
        let mut line = words.to_vec();
        line.push("busybox");
        let shown = match run(&line) {
            Ok(body) => difference("", &plain, &serde_json::to_value(body).unwrap()).join("\n"),
            Err(err) => err.chain(),
        };
        assert_eq!(shown, expected, "{words:?}");
    }

    fn difference(path: &str, a: &serde_json::Value, b: &serde_json::Value) -> Vec<String> {
        match (a.as_object(), b.as_object()) {
            (Some(left), Some(right)) => {
                let null = serde_json::Value::Null;
                let keys: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
                let of = |map: &serde_json::Map<String, serde_json::Value>, key: &String| {
                    map.get(key).cloned().unwrap_or(null.clone())
                };
                keys.into_iter()
                    .flat_map(|key| {
                        difference(&format!("{path}.{key}"), &of(left, key), &of(right, key))
                    })
                    .collect()
            }
            _ if a == b => Vec::new(),
            _ => vec![format!("{path}={b}")],
        }
    }

    #[test]
    fn flags_become_fields() {
        check(&["-it"], ".AttachStdin=true\n.OpenStdin=true\n.StdinOnce=true\n.Tty=true");
        check(&["-a", "stderr"], ".AttachStdout=false");
        check(
            &["-m", "32m", "--cpus", "1.5"],
            ".HostConfig.Memory=33554432\n.HostConfig.NanoCpus=1500000000",
        );
        check(
            &["-p", "8080:80"],
            ".ExposedPorts={\"80/tcp\":{}}\n.HostConfig.PortBindings.80/tcp=[{\"HostIp\":\"\",\"HostPort\":\"8080\"}]",
        );
        check(&["-v", "/a:/b", "-v", "/c"], ".HostConfig.Binds=[\"/a:/b\"]\n.Volumes./c={}");
        check(&["-e", "A=1", "-l", "x=y"], ".Env=[\"A=1\"]\n.Labels.x=\"y\"");
        check(
            &["--restart", "on-failure:3"],
            ".HostConfig.RestartPolicy.MaximumRetryCount=3\n.HostConfig.RestartPolicy.Name=\"on-failure\"",
        );
        check(
            &["--health-cmd", "true", "--health-interval", "1s"],
            ".Healthcheck={\"Interval\":1000000000,\"Test\":[\"CMD-SHELL\",\"true\"]}",
        );
        check(
            &["--cap-add", "sys_admin", "--cap-drop", "all", "--cap-add", "CAP_KILL"],
            ".HostConfig.CapAdd=[\"CAP_KILL\",\"CAP_SYS_ADMIN\"]\n.HostConfig.CapDrop=[\"ALL\"]",
        );
        check(&["--entrypoint", ""], ".Entrypoint=[\"\"]");
        check(&["--add-host", "h=[::1]"], ".HostConfig.ExtraHosts=[\"h:::1\"]");
        check(
            &["--net", "n", "--network-alias", "a"],
            ".HostConfig.NetworkMode=\"n\"\n.NetworkingConfig.EndpointsConfig.n={\"Aliases\":[\"a\"],\"DNSNames\":null,\"DriverOpts\":null,\"EndpointID\":\"\",\
             \"Gateway\":\"\",\"GlobalIPv6Address\":\"\",\"GlobalIPv6PrefixLen\":0,\"GwPriority\":0,\"IPAMConfig\":null,\"IPAddress\":\"\",\"IPPrefixLen\":0,\
             \"IPv6Gateway\":\"\",\"Links\":null,\"MacAddress\":\"\",\"NetworkID\":\"\"}",
        );
    }

    #[test]
    fn refusals() {
        check(
            &["--rm", "--restart", "always"],
            "conflicting options: cannot specify both --restart and --rm",
        );
        check(
            &["--network", "host", "--network-alias", "x"],
            "network-scoped aliases are only supported for user-defined networks",
        );
        check(
            &["--no-healthcheck", "--health-cmd", "x"],
            "--no-healthcheck conflicts with --health-* options",
        );
        check(&["--pid", "x"], "--pid: invalid PID mode");
        check(&["--storage-opt", "x"], "invalid storage option");
    }
}
