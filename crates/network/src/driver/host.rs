//! `host`: no namespace; the container sees what the host sees.

use std::sync::Arc;

use stdx::Result;

use super::{Driver, Inside, Namespace};
use crate::records::{Endpoint, Network};

pub(crate) struct HostDriver;

impl Driver for HostDriver {
    fn namespace(&self) -> Namespace {
        Namespace::Host
    }

    fn ready(&self, _: &Network) -> Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Network, _: &[Arc<Network>]) -> Result<()> {
        Ok(())
    }

    fn connect(&self, _: &Network, _: &Endpoint, _: &mut Inside) -> Result<()> {
        Ok(())
    }

    fn disconnect(&self, _: &[Arc<Endpoint>]) -> Result<()> {
        Ok(())
    }
}
