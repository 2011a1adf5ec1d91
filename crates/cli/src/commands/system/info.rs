//! `info`: the engine described.

use stdx::units::bytes_size;

use crate::command::{Call, Command, about};
use crate::failure::{Failure, Result};
use crate::flags::{Flag, Kind};
use crate::format::{Absent, GoType, Template, Value, with_go_types};

pub(crate) static COMMAND: Command = Command {
    names: &["system info", "info"],
    usage: "[OPTIONS]",
    about: "Display system-wide information",
    flags: &[Flag::new("format", Kind::Text, about::FORMAT).short('f')],
    run: |call| Box::pin(run(call)),
    ..Command::NONE
};

async fn run(call: &Call<'_>) -> Result {
    let template = match call.flags.text("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        given => Some(given),
    };
    let template = template
        .map(Template::parse)
        .transpose()
        .map_err(|err| Failure::new(64, format!("template parsing error: {err}")))?;
    let info: Result<Value> = match call.cli.client() {
        Ok(client) => client.get("/info").fetch().await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    let (info, failure) = match info {
        Ok(info) => (info, None),
        Err(failure) => (Value::map::<&str>([]), Some(failure)),
    };
    match template {
        Some(template) => {
            let shaped = crate::format::inspect::shape(&info, "", "").with_types(&TYPES);
            let members =
                shaped.entries().iter().map(|(key, value)| (key.to_string(), value.clone()));
            let all = members.chain([("ClientInfo".to_owned(), client_info(call))]);
            let text = template.run(&Value::fields("system.dockerInfo", all), Absent::NoValue);
            match (text, &failure) {
                (Ok(text), _) => call.cli.printer.line(&text)?,
                (Err(_), Some(_)) => {}
                (Err(err), None) => {
                    // As Docker's client ends the line that it has begun.
                    call.cli.printer.line("")?;
                    return Err(Failure::words(with_go_types(err, &TYPES)));
                }
            }
        }
        None => {
            call.cli.printer.text(&client_text(call))?;
            let server =
                if failure.is_none() { server_text(&info) } else { "\nServer:\n".to_owned() };
            call.cli.printer.text(&server)?;
            for warning in info.items_at("Warnings").iter().filter_map(Value::as_str) {
                call.cli.printer.complain(warning);
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What Docker calls the parts of an engine's description.
const TYPES: [GoType; 12] = [
    ("ContainerdCommit", "system.Commit"),
    ("DriverStatus", "[][2]string"),
    ("GenericResources", "[]swarm.GenericResource"),
    ("InitCommit", "system.Commit"),
    ("MemTotal", "int64"),
    ("Plugins", "system.PluginsInfo"),
    ("Plugins.Log", "[]string"),
    ("RegistryConfig", "*registry.ServiceConfig"),
    ("RuncCommit", "system.Commit"),
    ("SecurityOptions", "[]string"),
    ("Swarm", "swarm.Info"),
    ("Swarm.RemoteManagers", "[]swarm.Peer"),
];

fn client_info(call: &Call<'_>) -> Value {
    Value::fields(
        "*system.clientInfo",
        [
            ("Debug", Value::Bool(call.cli.globals.debug)),
            ("Version", Value::text(VERSION)),
            ("Os", Value::text("linux")),
            ("Arch", Value::text(super::version::architecture())),
            ("Context", Value::text(call.cli.context_name())),
            ("Plugins", Value::NilList),
            ("Warnings", Value::NilList),
        ],
    )
}

fn client_text(call: &Call<'_>) -> String {
    format!(
        "Client:\n Version:    {VERSION}\n Context:    {}\n Debug Mode: {}\n",
        call.cli.context_name(),
        call.cli.globals.debug
    )
}

fn server_text(info: &Value) -> String {
    let mut lines: Vec<String> = vec!["\nServer:".to_owned()];
    let mut put = |line: String| lines.push(line);
    let words =
        |path: &str| info.items_at(path).iter().filter_map(Value::as_str).collect::<Vec<_>>();
    put(format!(" Containers: {}", info.int_at("Containers")));
    put(format!("  Running: {}", info.int_at("ContainersRunning")));
    put(format!("  Paused: {}", info.int_at("ContainersPaused")));
    put(format!("  Stopped: {}", info.int_at("ContainersStopped")));
    put(format!(" Images: {}", info.int_at("Images")));
    let maybe = |label: &str, path: &str| match info.str_at(path) {
        "" => None,
        text => Some(format!(" {label}: {text}")),
    };
    lines.extend(maybe("Server Version", "ServerVersion"));
    lines.extend(maybe("Storage Driver", "Driver"));
    let pairs = |path: &str| {
        let pair = |pair: &Value| {
            let text = |index: usize| {
                pair.items().get(index).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            format!("  {}: {}", text(0), text(1))
        };
        info.items_at(path).iter().map(pair).collect::<Vec<_>>()
    };
    lines.extend(pairs("DriverStatus"));
    lines.extend(maybe("Logging Driver", "LoggingDriver"));
    lines.extend(maybe("Cgroup Driver", "CgroupDriver"));
    lines.extend(maybe("Cgroup Version", "CgroupVersion"));
    lines.push(" Plugins:".to_owned());
    lines.push(format!("  Volume: {}", words("Plugins.Volume").join(" ")));
    lines.push(format!("  Network: {}", words("Plugins.Network").join(" ")));
    if !words("Plugins.Authorization").is_empty() {
        lines.push(format!("  Authorization: {}", words("Plugins.Authorization").join(" ")));
    }
    lines.push(format!("  Log: {}", words("Plugins.Log").join(" ")));
    if !words("CDISpecDirs").is_empty() {
        lines.push(" CDI spec directories:".to_owned());
        lines.extend(words("CDISpecDirs").iter().map(|directory| format!("  {directory}")));
    }
    lines.push(format!(" Swarm: {}", info.str_at("Swarm.LocalNodeState")));
    let mut runtimes: Vec<&str> =
        info.entries_at("Runtimes").iter().map(|(name, _)| &**name).collect();
    runtimes.sort_unstable();
    if !runtimes.is_empty() {
        lines.push(format!(" Runtimes: {}", runtimes.join(" ")));
    }
    lines.extend(maybe("Default Runtime", "DefaultRuntime"));
    if info.str_at("OSType") == "linux" {
        lines.push(format!(" Init Binary: {}", info.str_at("InitBinary")));
        for (label, path) in [
            ("containerd", "ContainerdCommit.ID"),
            ("runc", "RuncCommit.ID"),
            ("init", "InitCommit.ID"),
        ] {
            lines.push(format!(" {label} version: {}", info.str_at(path)));
        }
        lines.extend(security(&words("SecurityOptions")));
    }
    lines.extend(maybe("Kernel Version", "KernelVersion"));
    lines.extend(maybe("Operating System", "OperatingSystem"));
    lines.extend(maybe("OSType", "OSType"));
    lines.extend(maybe("Architecture", "Architecture"));
    lines.push(format!(" CPUs: {}", info.int_at("NCPU")));
    lines.push(format!(" Total Memory: {}", bytes_size(info.int_at("MemTotal") as f64)));
    lines.extend(maybe("Name", "Name"));
    lines.extend(maybe("ID", "ID"));
    lines.push(format!(" Docker Root Dir: {}", info.str_at("DockerRootDir")));
    lines.push(format!(" Debug Mode: {}", info.bool_at("Debug")));
    if info.bool_at("Debug") {
        lines.push(format!("  File Descriptors: {}", info.int_at("NFd")));
        lines.push(format!("  Goroutines: {}", info.int_at("NGoroutines")));
        lines.push(format!("  System Time: {}", info.str_at("SystemTime")));
        lines.push(format!("  EventsListeners: {}", info.int_at("NEventsListener")));
    }
    lines.extend(maybe("HTTP Proxy", "HttpProxy"));
    lines.extend(maybe("HTTPS Proxy", "HttpsProxy"));
    lines.extend(maybe("No Proxy", "NoProxy"));
    if !words("Labels").is_empty() {
        lines.push(" Labels:".to_owned());
        lines.extend(words("Labels").iter().map(|label| format!("  {label}")));
    }
    lines.push(format!(" Experimental: {}", info.bool_at("ExperimentalBuild")));
    let insecure: Vec<&str> = info
        .entries_at("RegistryConfig.IndexConfigs")
        .iter()
        .filter(|(_, index)| !index.bool_at("Secure"))
        .map(|(name, _)| &**name)
        .chain(words("RegistryConfig.InsecureRegistryCIDRs"))
        .collect();
    if !insecure.is_empty() {
        lines.push(" Insecure Registries:".to_owned());
        lines.extend(insecure.iter().map(|registry| format!("  {registry}")));
    }
    if !words("RegistryConfig.Mirrors").is_empty() {
        lines.push(" Registry Mirrors:".to_owned());
        lines.extend(words("RegistryConfig.Mirrors").iter().map(|mirror| format!("  {mirror}")));
    }
    lines.push(format!(" Live Restore Enabled: {}", info.bool_at("LiveRestoreEnabled")));
    lines.extend(maybe("Product License", "ProductLicense"));
    let pools = info.items_at("DefaultAddressPools");
    if !pools.is_empty() {
        lines.push(" Default Address Pools:".to_owned());
        lines.extend(pools.iter().map(|pool| {
            format!("   Base: {}, Size: {}", pool.str_at("Base"), pool.int_at("Size"))
        }));
    }
    if !info.str_at("FirewallBackend.Driver").is_empty() {
        lines.push(format!(" Firewall Backend: {}", info.str_at("FirewallBackend.Driver")));
        lines.extend(pairs("FirewallBackend.Info"));
    }
    lines.push("\n".to_owned());
    lines.join("\n")
}

/// `name=seccomp,profile=default` on two lines.
fn security(options: &[&str]) -> Vec<String> {
    if options.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![" Security Options:".to_owned()];
    for option in options {
        for pair in option.split(',') {
            match pair.split_once('=') {
                Some(("name", name)) => lines.push(format!("  {name}")),
                Some(("profile", profile)) => lines.push(format!("   Profile: {profile}")),
                Some((key, value)) => lines.push(format!("   {key}: {value}")),
                None => lines.push(format!("  {pair}")),
            }
        }
    }
    lines
}
