//! Block devices by path, looked up for their numbers.

use oci::runtime::{BlockIo, ThrottleDevice, WeightDevice};
use rustix::fs::{FileType, major, minor};
use stdx::{Error, Result};

use super::plan::BlockDevices;

/// What the cgroup is to be told of single devices.
pub(super) fn look_up(wanted: &BlockDevices) -> Result<BlockIo> {
    let throttles = |list: &[(String, u64)]| {
        list.iter()
            .map(|(path, rate)| {
                let (major, minor) = numbers(path)?;
                Ok(ThrottleDevice { major, minor, rate: *rate })
            })
            .collect::<Result<Vec<_>>>()
    };
    let weight = |(path, weight): &(String, u16)| {
        let (major, minor) = numbers(path)?;
        Ok(WeightDevice { major, minor, weight: Some(*weight), leaf_weight: None })
    };
    Ok(BlockIo {
        weight_device: wanted.weights.iter().map(weight).collect::<Result<_>>()?,
        throttle_read_bps_device: throttles(&wanted.read_bps)?,
        throttle_write_bps_device: throttles(&wanted.write_bps)?,
        throttle_read_iops_device: throttles(&wanted.read_iops)?,
        throttle_write_iops_device: throttles(&wanted.write_iops)?,
        ..BlockIo::default()
    })
}

fn numbers(path: &str) -> Result<(i64, i64)> {
    let stat = rustix::fs::stat(path)
        .map_err(|errno| Error::invalid(format!("stat {path}")).caused_by(Error::from(errno)))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return Err(Error::invalid(format!("{path} is not a block device")));
    }
    Ok((i64::from(major(stat.st_rdev)), i64::from(minor(stat.st_rdev))))
}
