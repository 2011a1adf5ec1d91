//! SIGHUP: the configuration is read again, and that of it changes which may change while containers run. What cannot be
//! understood changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{Settings, System};
use image::Images;
use plugin::Plugins;
use rootless::Outside;
use server::{Authorization, Gate};
use stdx::Result;
use tokio::signal::unix::Signal;

use crate::config::{Config, Read, Told};
use crate::daemon::{self, LogFilter};

/// Whatever is told of another configuration.
pub(crate) struct Listeners {
    pub(crate) log: LogFilter,
    pub(crate) system: System,
    pub(crate) images: Images,
    pub(crate) gate: Gate,
    pub(crate) plugins: Arc<Plugins>,
    pub(crate) outside: Option<Arc<Outside>>,
}

/// Reads again whenever somebody asks, for as long as the daemon lives.
pub(crate) async fn when_asked(
    mut asked: Signal,
    told: Told,
    mut config: Config,
    listeners: Listeners,
) {
    while asked.recv().await.is_some() {
        tracing::info!(file = told.file, "Got signal to reload configuration");
        match listeners.reload(&config, &told).await {
            Ok(new) => config = new,
            Err(error) => {
                tracing::error!(error = %error.chain(), "the configuration stays as it was");
            }
        }
    }
}

impl Listeners {
    /// All that can fail comes before all that changes something.
    async fn reload(&self, old: &Config, told: &Told) -> Result<Config> {
        let config = merged(old, told.read()?);
        let settings = changed(&self.system.settings(), &config);
        settings.check_default_runtime()?;
        let authorization = match old.authorization_plugins == config.authorization_plugins {
            true => None,
            false => {
                let names = config.authorization_plugins.clone();
                let plugins = Arc::clone(&self.plugins);
                Some(tokiox::blocking(move || Authorization::new(names, plugins)).await?)
            }
        };
        let attributes = attributes(&config)?;
        (self.log)(&config);
        if let Some(authorization) = authorization {
            self.gate.put(authorization);
        }
        self.images.use_registries(daemon::parts::registries(&config, self.outside.clone()));
        tracing::info!(?attributes, "Reloaded configuration");
        self.system.reload(settings, attributes);
        Ok(config)
    }
}

type Take = fn(&mut Config, &Config);

/// What changes when the file speaks of it, and stays when it does not.
const WHEN_SAID: &[(&str, Take)] = &[
    ("add-runtime", |to, from| to.runtimes.clone_from(&from.runtimes)),
    ("debug", |to, from| to.debug = from.debug),
    ("default-cgroupns-mode", |to, from| to.cgroupns_mode.clone_from(&from.cgroupns_mode)),
    ("default-ipc-mode", |to, from| to.ipc_mode.clone_from(&from.ipc_mode)),
    ("default-runtime", |to, from| to.default_runtime.clone_from(&from.default_runtime)),
    ("default-shm-size", |to, from| to.shm_size = from.shm_size),
    ("insecure-registry", |to, from| {
        to.insecure_registries.clone_from(&from.insecure_registries);
    }),
    ("label", |to, from| to.labels.clone_from(&from.labels)),
    ("live-restore", |to, from| to.live_restore = from.live_restore),
    ("log-level", |to, from| to.log_level.clone_from(&from.log_level)),
    ("registry-mirror", |to, from| to.registry_mirrors.clone_from(&from.registry_mirrors)),
    ("shutdown-timeout", |to, from| to.shutdown_timeout = from.shutdown_timeout),
];

/// What is as flags and file say now, or as usual where they say nothing.
const ALWAYS: &[Take] = &[
    |to, from| to.authorization_plugins.clone_from(&from.authorization_plugins),
    |to, from| to.features.clone_from(&from.features),
    |to, from| to.max_concurrent_downloads = from.max_concurrent_downloads,
    |to, from| to.max_concurrent_uploads = from.max_concurrent_uploads,
    |to, from| to.max_download_attempts = from.max_download_attempts,
];

fn merged(old: &Config, read: Read) -> Config {
    let mut config = old.clone();
    let said = WHEN_SAID.iter().filter(|(flag, _)| read.in_file.contains(flag));
    for take in said.map(|(_, take)| take).chain(ALWAYS) {
        take(&mut config, &read.config);
    }
    config
}

fn changed(old: &Settings, config: &Config) -> Settings {
    Settings {
        authorization_plugins: config.authorization_plugins.clone(),
        cgroupns_mode: config.cgroupns_mode.clone(),
        debug: config.debug,
        default_runtime: config.default_runtime.clone(),
        insecure_registries: config.insecure_registries.clone(),
        ipc_mode: config.ipc_mode.clone(),
        labels: config.labels.clone(),
        registry_mirrors: config.registry_mirrors.clone(),
        runtimes: config.runtimes.clone(),
        shm_size: config.shm_size,
        ..old.clone()
    }
}

/// What Docker's event tells of it.
fn attributes(config: &Config) -> Result<BTreeMap<String, String>> {
    let list = |values: &[String]| serde_json::json!(values).to_string();
    let features: Vec<String> =
        config.features.iter().map(|(name, wanted)| format!("{name}:{wanted}")).collect();
    let runtimes: Vec<String> =
        config.runtimes.iter().map(|(name, path)| format!("{name}:{}", path.display())).collect();
    let cgroupns = match config.cgroupns_mode.as_str() {
        "" => engine::usual_cgroupns_mode()?,
        mode => mode,
    };
    let ipc = if config.ipc_mode.is_empty() { "private" } else { &config.ipc_mode };
    let attributes = [
        ("debug", config.debug.to_string()),
        ("default-cgroupns-mode", cgroupns.to_owned()),
        ("default-ipc-mode", ipc.to_owned()),
        ("default-runtime", config.default_runtime.clone()),
        ("default-shm-size", config.shm_size.to_string()),
        ("features", format!("map[{}]", features.join(" "))),
        ("insecure-registries", list(&config.insecure_registries)),
        ("labels", list(&config.labels)),
        ("live-restore", config.live_restore.to_string()),
        ("max-concurrent-downloads", config.max_concurrent_downloads.to_string()),
        ("max-concurrent-uploads", config.max_concurrent_uploads.to_string()),
        ("max-download-attempts", config.max_download_attempts.to_string()),
        ("registry-mirrors", list(&config.registry_mirrors)),
        ("runtimes", runtimes.join(" ")),
        ("shutdown-timeout", config.shutdown_timeout.to_string()),
    ];
    Ok(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_does_not_speak_of_stays() {
        let old = Config {
            debug: true,
            labels: vec!["a=b".to_owned()],
            max_concurrent_downloads: 9,
            data_root: "/old".into(),
            ..Config::default()
        };
        let config = Config {
            labels: vec!["c=d".to_owned()],
            data_root: "/new".into(),
            ..Config::default()
        };
        let read = Read { config, in_file: ["label", "data-root"].into() };
        let expected =
            Config { labels: vec!["c=d".to_owned()], max_concurrent_downloads: 3, ..old.clone() };
        assert_eq!(merged(&old, read), expected);
    }
}
