//! Publishing other ports, while a container runs or not.
//!
//! A change is announced in the record before it begins: a daemon that dies in it is followed by one that publishes what the
//! record asks for, and nothing else.

use api::container::{Config, HostConfig, PortMap};
use network::{PortRequest, PublishedPort};
use stdx::Result;

use super::record::Record;
use super::{Container, plan};

/// Ports that are other than the record says.
pub(super) struct Republished {
    before: Vec<PortRequest>,
    after: Vec<PortRequest>,
    pub(super) ports: Vec<PublishedPort>,
}

impl Container {
    /// Changes what `config` exposes and `host` asks for, and has it so where the container runs. The gate is held by
    /// whoever calls.
    pub(super) async fn republish(
        &self,
        record: &Record,
        (config, host): (&mut Config, &mut HostConfig),
        (add, remove): (PortMap, PortMap),
        warnings: &mut Vec<String>,
    ) -> Result<Option<Republished>> {
        if add.is_empty() && remove.is_empty() {
            return Ok(None);
        }
        plan::rebind(host, &mut config.exposed_ports, add, remove, &record.ports)?;
        let after = plan::published(config, host, warnings)?.requests;
        let before = plan::published(&record.config, record.host(), &mut Vec::new())?.requests;
        if !record.state.phase.is_up() || before == after {
            return Ok(None);
        }
        self.save(Record { ports_pending: true, ..record.clone() })?;
        match self.exchange_ports(Some(before.clone()), after.clone()).await {
            Ok(ports) => Ok(Some(Republished { before, after, ports })),
            Err(error) => {
                self.save(record.clone())?;
                Err(error)
            }
        }
    }

    /// What came with it was refused: the ports go back, too.
    pub(super) async fn take_republished_back(&self, republished: Republished) {
        let Republished { before, after, .. } = republished;
        if let Err(error) = self.exchange_ports(Some(after), before).await {
            tracing::error!(container = %self.id(), error = %error.chain(), "cannot take a change of ports back");
        }
    }

    /// After a daemon that died in the middle of a change: what is written down holds.
    pub(crate) async fn finish_republishing(&self) -> Result<()> {
        if !self.record().ports_pending {
            return Ok(());
        }
        let _gate = self.cell.gate.lock().await;
        let record = self.record();
        if !record.ports_pending || record.gone {
            return Ok(());
        }
        let mut next = Record { ports_pending: false, ..Record::clone(&record) };
        if record.state.phase.is_up() {
            let wanted = plan::published(&record.config, record.host(), &mut Vec::new())?;
            next.ports = self.exchange_ports(None, wanted.requests).await?;
        }
        self.save(next)
    }

    async fn exchange_ports(
        &self,
        before: Option<Vec<PortRequest>>,
        after: Vec<PortRequest>,
    ) -> Result<Vec<PublishedPort>> {
        let this = self.clone();
        tokiox::blocking(move || {
            this.rooms.networks.republish(this.id(), before.as_deref(), &after)
        })
        .await
    }
}
