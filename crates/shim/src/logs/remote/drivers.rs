//! Which driver is which.

use stdx::{Error, Result};

use super::options::Options;
use super::{Driver, Shim, aws, fluentd, gcp, gelf, plugin, splunk, syslog};
use crate::logs::{self, Config};

/// Connects, as far as a driver does so before there is anything to say.
pub(super) fn open<'a>(config: &Config, shim: &'a Shim<'a>) -> Result<Box<dyn Driver + 'a>> {
    Ok(match config.driver {
        logs::Driver::Fluentd => Box::new(fluentd::Fluentd::open(config, shim)?),
        logs::Driver::Gelf => Box::new(gelf::Gelf::open(config, shim)?),
        logs::Driver::Splunk => Box::new(splunk::Splunk::open(config, shim)?),
        logs::Driver::Awslogs => Box::new(aws::Awslogs::open(config, shim)?),
        logs::Driver::Gcplogs => Box::new(gcp::Gcplogs::open(config, shim)?),
        logs::Driver::Syslog => Box::new(syslog::Syslog::open(config, shim)?),
        logs::Driver::Plugin => Box::new(plugin::Plugin::open(config, shim)?),
        logs::Driver::JsonFile
        | logs::Driver::Local
        | logs::Driver::Journald
        | logs::Driver::None => return Err(Error::internal("a driver that needs no process")),
    })
}

/// Whether the options are the driver's, and mean something. `options` are its own: those of all drivers are left out.
pub(in crate::logs) fn check(driver: logs::Driver, options: &Options) -> Result<()> {
    match driver {
        logs::Driver::Fluentd => fluentd::check(options),
        logs::Driver::Gelf => gelf::check(options),
        logs::Driver::Splunk => splunk::check(options),
        logs::Driver::Awslogs => aws::check(options),
        logs::Driver::Gcplogs => gcp::check(options),
        _ => Ok(()),
    }
}
