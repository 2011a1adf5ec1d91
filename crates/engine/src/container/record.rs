//! What is remembered of a container. `wire` shapes are kept as they came, so that `inspect` loses nothing.

use std::collections::BTreeMap;

use api::container::{Config, HostConfig, MountPoint};
use api::network::Endpoints;
use network::PublishedPort;
use oci::Digest;
use serde::{Deserialize, Serialize};
use stdx::time::Timestamp;
use stdx::{Id, Result};

use super::health::Health;
use super::ids::{Ids, Range};
use super::mounts::{MountPlan, ReadOnlyBinds};
use super::plan::Plan;
use super::state::State;
use crate::rooms::Settings;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: Id,
    /// Without Docker's leading slash.
    pub name: String,
    pub created: Timestamp,
    /// The image's id and its layers, bottom first; neither changes when its names do.
    pub image: Digest,
    pub chain: Vec<oci::image::ChainId>,
    /// As asked for and merged with the image's.
    pub config: Config,
    pub host_config: HostConfig,
    #[serde(default)]
    pub read_only_binds: ReadOnlyBinds,
    pub platform: String,
    /// Name of the storage driver that holds the writable layer.
    pub driver: String,
    pub mounts: Vec<MountPoint>,
    /// Anonymous volumes made for this container, removed with it by `rm -v` and `--rm`.
    pub own_volumes: Vec<String>,
    /// What `--volumes-from` meant when it was made; the other container may be gone.
    #[serde(default)]
    pub of_others: Vec<MountPlan>,
    /// Images that are mounted into it, by where.
    #[serde(default)]
    pub mounted_images: BTreeMap<String, Digest>,
    /// By network name; addresses are filled in while it runs.
    pub endpoints: Endpoints,
    /// What is bound on the host for it, while it runs.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// By network name: the MAC addresses that were asked for. What `endpoints` shows is what it has.
    #[serde(default)]
    pub wanted_macs: BTreeMap<String, String>,
    pub state: State,
    /// Of a container that is checked, since its first start.
    #[serde(default)]
    pub health: Option<Health>,
    /// Who its users are on the host; nobody else has them as long as this record is there.
    #[serde(default)]
    pub ids: Option<Ids>,
    #[serde(default)]
    pub id_range: Option<Range>,
    pub restart_count: u32,
    /// The limits in `host_config` are newer than the kernel's.
    #[serde(default)]
    pub limits_pending: bool,
    /// Other ports than `host_config` asks for may be published: a change of them has begun and is not written down.
    #[serde(default)]
    pub ports_pending: bool,
    /// Stopped by a user: `unless-stopped` and `on-failure` leave it alone at boot.
    pub stopped_by_hand: bool,
    /// Its removal, once begun, takes its own volumes too: a daemon that finishes what another began must know.
    #[serde(default)]
    pub removes_volumes: bool,
    /// Paused for a moment by `commit`, or while a volume of its is copied: the next daemon lets it go on if this one cannot.
    #[serde(default)]
    pub frozen_to_commit: bool,
    /// Removed: this is the last that readers will ever see of it.
    #[serde(skip)]
    pub gone: bool,
}

impl state::Record for Record {
    const TABLE: &'static str = "containers";

    fn key(&self) -> String {
        self.id.to_string()
    }
}

impl Record {
    /// What was asked for, understood.
    pub(crate) fn plan(&self, settings: &Settings) -> Result<Plan> {
        Plan::of(&self.config, &self.host_config, self.read_only_binds, settings)
    }

    pub fn labels(&self) -> BTreeMap<String, String> {
        self.config.labels.clone().unwrap_or_default().into_iter().collect()
    }

    /// Whether its ports mean anything to others: it has networks of its own.
    pub fn has_ports(&self) -> bool {
        let mode = self.host_config.network_mode.as_str();
        !matches!(mode, "host" | "none") && !mode.starts_with("container:")
    }

    /// What depends on this host.
    pub fn host(&self) -> &HostConfig {
        &self.host_config
    }

    pub fn tty(&self) -> bool {
        self.config.tty
    }
}
