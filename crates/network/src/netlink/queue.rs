//! Queues that hold packets back: the few words of traffic control that we speak.

use super::message::{Batch, CREATE, EXCLUSIVE, REPLACE};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;

const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// The first queue of a device, and the first filter there.
const FIRST: u32 = 0x0001_0000;
const FIRST_FILTER: u32 = 0x8000_0800;
/// First, and for every protocol (`ETH_P_ALL` in network byte order).
const EVERYTHING: u32 = 1 << 16 | 0x0300;

const LINKLAYER_ETHERNET: u8 = 1;
const TERMINAL: u8 = 1;
const STOLEN: u32 = 4;
const REDIRECT_OUT: u32 = 1;

/// A bucket that tokens drop into: how fast, in bits a second, and what fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    bytes: u64,
    burst: u32,
    limit: u32,
}

impl Bucket {
    /// For a device of this MTU: fifty times a second a burst, and a tenth of a second's worth may wait.
    pub(crate) fn of(bits: u64, mtu: u32) -> Self {
        const BURSTS: u64 = 50;
        const WAITING: u64 = 10;
        const LEAST_WAITING: u64 = 32 * 1024;
        const FRAME: u64 = 64;
        let bytes = (bits / 8).max(1);
        let burst = (bytes / BURSTS).max(8 * 1024).max(u64::from(mtu) + FRAME);
        let limit = burst + (bytes / WAITING).max(LEAST_WAITING);
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self { bytes, burst: small(burst), limit: small(limit) }
    }
}

impl Batch {
    /// What leaves by a device goes no faster than that.
    pub(crate) fn limit(&mut self, device: u32, bucket: Bucket) {
        let header = header(device, FIRST, ROOT, 0);
        self.push(RTM_NEWQDISC, CREATE | REPLACE, &header, |queue| {
            queue.text(TCA_KIND, "tbf");
            queue.nest(TCA_OPTIONS, |options| {
                options.bytes(TCA_TBF_PARMS, &parameters(bucket));
                options.u32(TCA_TBF_BURST, bucket.burst);
                if bucket.bytes > u64::from(u32::MAX) {
                    options.bytes(TCA_TBF_RATE64, &bucket.bytes.to_ne_bytes());
                }
            });
        });
    }

    pub(crate) fn drop_limit(&mut self, device: u32) {
        self.push(RTM_DELQDISC, 0, &header(device, FIRST, ROOT, 0), |_| {});
    }

    /// What comes in by a device goes out by another first, and comes in when that lets it. Two messages.
    pub(crate) fn detour(&mut self, device: u32, by: u32) {
        let ingress = header(device, INGRESS_HANDLE, INGRESS, 0);
        self.push(RTM_NEWQDISC, CREATE | EXCLUSIVE, &ingress, |queue| {
            queue.text(TCA_KIND, "ingress");
        });
        let header = header(device, FIRST_FILTER, INGRESS_HANDLE, EVERYTHING);
        self.push(RTM_NEWTFILTER, CREATE | EXCLUSIVE, &header, |filter| {
            filter.text(TCA_KIND, "u32");
            filter.nest(TCA_OPTIONS, |options| {
                options.nest(TCA_U32_ACT, |actions| {
                    actions.nest(1, |action| {
                        action.text(TCA_ACT_KIND, "mirred");
                        action.nest(TCA_ACT_OPTIONS, |options| {
                            options.bytes(TCA_MIRRED_PARMS, &redirect(by));
                        });
                    });
                });
                options.bytes(TCA_U32_SEL, &match_all());
            });
        });
    }

    pub(crate) fn drop_detour(&mut self, device: u32) {
        self.push(RTM_DELQDISC, 0, &header(device, INGRESS_HANDLE, INGRESS, 0), |_| {});
    }
}

/// `struct tcmsg`
fn header(device: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut header = [0; 20];
    for (index, number) in [device, handle, parent, info].into_iter().enumerate() {
        header[4 + 4 * index..8 + 4 * index].copy_from_slice(&number.to_ne_bytes());
    }
    header
}

/// `struct tc_tbf_qopt`: rate, peak rate, limit, and two numbers that others say better.
fn parameters(bucket: Bucket) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[1] = LINKLAYER_ETHERNET;
    let rate = u32::try_from(bucket.bytes).unwrap_or(u32::MAX);
    bytes[8..12].copy_from_slice(&rate.to_ne_bytes());
    bytes[24..28].copy_from_slice(&bucket.limit.to_ne_bytes());
    bytes
}

/// `struct tc_u32_sel` with one key that asks nothing.
fn match_all() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = TERMINAL;
    bytes[2] = 1;
    bytes
}

/// `struct tc_mirred`
fn redirect(device: u32) -> [u8; 28] {
    let mut bytes = [0; 28];
    for (at, number) in [(8, STOLEN), (20, REDIRECT_OUT), (24, device)] {
        bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets() {
        let bucket = |bits| Bucket::of(bits, 1500);
        let ten_megabits = bucket(10_000_000);
        assert_eq!(ten_megabits, Bucket { bytes: 1_250_000, burst: 25_000, limit: 150_000 });
        assert_eq!(bucket(1).burst, 8192, "a packet has to fit");
        assert_eq!(Bucket::of(1, 65535).burst, 65599);
        assert_eq!(bucket(100_000_000_000).bytes, 12_500_000_000);
    }
}
