//! `docker network prune`: what users made and nobody uses.

use api::network::PruneReport;
use stdx::{Kind, Result};

use crate::container::inspect::parse_until;
use crate::{Containers, Filters};

impl Containers {
    pub async fn prune_networks(&self, filters: Filters) -> Result<PruneReport> {
        filters.allow(&["label", "label!", "until"])?;
        let until = filters.values("until").next().map(parse_until).transpose()?;
        let networks = self.rooms.networks.clone();
        tokiox::to_the_end(tokiox::blocking(move || {
            let mut report = PruneReport::default();
            for network in networks.list() {
                let chosen = !network.is_predefined()
                    && !network.config_only
                    && until.is_none_or(|until| network.created < until)
                    && filters.labels("label", &network.labels)
                    && !(filters.has("label!") && filters.labels("label!", &network.labels));
                if !chosen {
                    continue;
                }
                match networks.remove(network.id.as_str()) {
                    Ok(()) => {
                        report.networks_deleted.get_or_insert_default().push(network.name.clone());
                    }
                    // In use, or gone by now: not ours to prune.
                    Err(error) if matches!(error.kind(), Kind::Forbidden | Kind::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            networks.pruned();
            Ok(report)
        }))
        .await
    }
}
