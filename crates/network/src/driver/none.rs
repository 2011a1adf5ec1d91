//! `none`: a namespace of its own with nothing but loopback.

use std::sync::Arc;

use stdx::Result;

use super::{Driver, Inside, Namespace};
use crate::records::{Endpoint, Network};

pub(crate) struct NoneDriver;

impl Driver for NoneDriver {
    fn namespace(&self) -> Namespace {
        Namespace::Own
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
