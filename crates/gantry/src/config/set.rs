//! What each flag means for the configuration.

use std::path::PathBuf;

use engine::LogBudget;
use stdx::{Context, Error, Result, units};

use super::Config;
use super::values::{
    absolute, address, address_pool, at_most, exec_opt, ipc_mode, label, number, switch, two,
    ulimit,
};

impl Config {
    /// Takes one thing that was said, by the name of its flag.
    pub(super) fn set(&mut self, flag: &str, value: &str) -> Result<()> {
        let text = || value.to_owned();
        match flag {
            "add-runtime" => {
                let (name, path) = two(value)?;
                self.runtimes.insert(name.to_owned(), PathBuf::from(path));
            }
            "bip" => self.bip = Some(text()),
            "bip6" => self.bip6 = Some(text()),
            "bridge" => self.bridge = Some(text()),
            "authorization-plugin" => self.authorization_plugins.push(text()),
            "cdi-spec-dir" => {
                self.cdi_spec_dirs.get_or_insert_default().push(PathBuf::from(value));
            }
            "cgroup-parent" => self.cgroup_parent = text(),
            "data-root" => self.data_root = absolute(value)?,
            "debug" => self.debug = switch(value)?,
            "default-address-pool" => self.address_pools.push(address_pool(value)?),
            "default-gateway" => self.default_gateway = Some(address(value)?),
            "default-gateway-v6" => {
                let address =
                    value.parse().map_err(|_| Error::invalid("it is not an IPv6 address"));
                self.default_gateway6 = Some(address?);
            }
            "default-network-opt" => {
                let (driver, option) = two(value)?;
                let (name, option) = two(option)?;
                let options = self.network_options.entry(driver.to_owned()).or_default();
                options.insert(name.to_owned(), option.to_owned());
            }
            "default-runtime" => self.default_runtime = text(),
            "default-shm-size" => self.shm_size = units::ram_in_bytes(value)? as u64,
            "default-ulimit" => self.ulimits.push(ulimit(value)?),
            "dns" => self.dns.push(
                value
                    .parse::<std::net::IpAddr>()
                    .map_err(|_| Error::invalid(format!("{value} is not an ip address")))?
                    .to_string(),
            ),
            "dns-opt" => self.dns_options.push(text()),
            "dns-search" => self.dns_search.push(text()),
            "exec-opt" => {
                if let Some(driver) = exec_opt(value)? {
                    self.cgroup_driver = Some(driver);
                }
            }
            "feature" => {
                let (name, wanted) = value.split_once('=').unwrap_or((value, "true"));
                self.features.insert(name.to_owned(), switch(wanted)?);
            }
            "exec-root" => self.exec_root = absolute(value)?,
            "fixed-cidr" => self.fixed_cidr = Some(text()),
            "fixed-cidr-v6" => self.fixed_cidr6 = Some(text()),
            "group" => self.group = text(),
            "host" => self.hosts.push(text()),
            "host-gateway-ip" => self.host_gateway.push(
                value
                    .parse()
                    .map_err(|_| Error::invalid(format!("{value} is not an ip address")))?,
            ),
            "icc" => self.icc = switch(value)?,
            "init" => self.init = switch(value)?,
            "userns" => self.userns = text(),
            "userns-pool" => self.userns_pool = text(),
            "userns-remap" => self.userns_remap = text(),
            "insecure-registry" => self.insecure_registries.push(text()),
            "ip" => self.ip = address(value)?,
            "ip-forward" => self.ip_forward = switch(value)?,
            "ip-forward-no-drop" => self.ip_forward_no_drop = switch(value)?,
            "ip-masq" => self.ip_masq = switch(value)?,
            "iptables" => self.iptables = switch(value)?,
            "ip6tables" => self.ip6tables = switch(value)?,
            "allow-direct-routing" => self.allow_direct_routing = switch(value)?,
            "bridge-accept-fwmark" => self.accept_fwmark = Some(value.parse()?),
            "ipv6" => self.ipv6 = switch(value)?,
            "label" => label(&mut self.labels, value)?,
            "live-restore" | "shutdown-timeout" => self.set_end(flag, value)?,
            "log-budget" => self.log_budget = LogBudget::parse(value)?,
            "log-driver" => self.log_driver = text(),
            "log-level" => match value {
                "debug" | "info" | "warn" | "error" | "fatal" => self.log_level = text(),
                other => return Err(Error::invalid(format!("invalid logging level: {other}"))),
            },
            "log-opt" => {
                let (name, option) = value.split_once('=').unwrap_or((value, ""));
                self.log_opts.insert(name.to_owned(), option.to_owned());
            }
            "max-concurrent-downloads" => {
                self.max_concurrent_downloads = at_most(value, "max concurrent downloads", 3)?
            }
            "max-concurrent-uploads" => {
                self.max_concurrent_uploads = at_most(value, "max concurrent uploads", 5)?
            }
            "max-download-attempts" => {
                self.max_download_attempts = at_most(value, "max download attempts", 5)?
            }
            "default-ipc-mode" => self.ipc_mode = ipc_mode(value)?,
            "default-cgroupns-mode" => match value {
                "" | "host" | "private" => self.cgroupns_mode = text(),
                _ => {
                    return Err(Error::invalid(format!(
                        "default cgroup namespace mode ({value}) is invalid; use \"host\" or \"private\""
                    )));
                }
            },
            "metrics-addr" => self.metrics_address = Some(text()).filter(|text| !text.is_empty()),
            "mtu" => self.mtu = number(value)?,
            "no-new-privileges" => self.no_new_privileges = switch(value)?,
            "pidfile" => self.pidfile = PathBuf::from(value),
            "plugin-directory" => self.plugin_directories.push(PathBuf::from(value)),
            "registry-mirror" => self.registry_mirrors.push(text()),
            "rootless-host-loopback" | "rootless-link" | "rootless-mtu" => {
                self.set_rootless(flag, value)?;
            }
            "seccomp-profile" => {
                self.seccomp_profile = match value {
                    "unconfined" => text(),
                    "builtin" | "" => String::new(),
                    file => std::fs::read_to_string(file)
                        .context(|| format!("opening seccomp profile ({file}) failed"))?,
                }
            }
            "storage-driver" => self.storage_driver = Some(text()),
            "tls" => self.tls = switch(value)?,
            "tlscacert" => self.tls_ca = PathBuf::from(value),
            "tlscert" => self.tls_cert = PathBuf::from(value),
            "tlskey" => self.tls_key = PathBuf::from(value),
            "tlsverify" => self.tls_verify = switch(value)?,
            "experimental" => self.experimental = switch(value)?,
            "containerd" | "userland-proxy" => {
                self.remarks.push(format!("--{flag} is accepted and means nothing here"));
            }
            other => unreachable!("--{other} is in the table and not understood"),
        }
        Ok(())
    }
}

impl Config {
    /// What is to become of containers when the daemon ends: they live on, whatever is said.
    fn set_end(&mut self, flag: &str, value: &str) -> Result<()> {
        match flag {
            "live-restore" => self.live_restore = switch(value)?,
            _ => self.shutdown_timeout = number(value)?,
        }
        self.remarks.push(format!("--{flag} is accepted and means nothing here"));
        Ok(())
    }

    fn set_rootless(&mut self, flag: &str, value: &str) -> Result<()> {
        let mut wanted = self.rootless.clone().unwrap_or_default();
        match flag {
            "rootless-host-loopback" => wanted.host_loopback = switch(value)?,
            "rootless-mtu" => wanted.mtu = Some(number(value)?),
            _ => wanted.link = value.parse()?,
        }
        match &mut self.rootless {
            Some(rootless) => *rootless = wanted,
            None => self.remarks.push(format!("--{flag} means nothing to root's daemon")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::flags::SETTINGS;
    use super::super::flags::Shape::{Pairs, Switch};
    use super::*;

    #[test]
    fn every_setting_in_the_table_is_understood() {
        for setting in SETTINGS.iter().filter(|setting| setting.flag != "config-file") {
            let value = match (setting.flag, setting.shape) {
                (_, Switch) => "true",
                ("default-ulimit", _) => "nofile=1:2",
                ("default-ipc-mode", _) => "shareable",
                ("default-cgroupns-mode", _) => "private",
                ("feature", _) => "buildkit=true",
                ("label", _) => "a=b",
                ("log-budget", _) => "5GB",
                ("default-network-opt", _) => "bridge=com.docker.network.driver.mtu=1400",
                (_, Pairs) => "a=b",
                ("default-address-pool", _) => "base=10.0.0.0/8,size=24",
                ("dns" | "ip" | "default-gateway" | "host-gateway-ip", _) => "10.0.0.1",
                ("default-gateway-v6", _) => "fd00::1",
                ("exec-opt", _) => "native.cgroupdriver=cgroupfs",
                ("log-level", _) => "warn",
                ("rootless-link", _) => "pasta",
                ("seccomp-profile", _) => "unconfined",
                _ => "7",
            };
            Config::default().set(setting.flag, value).unwrap();
        }
    }
}
