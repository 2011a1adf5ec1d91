//! Times, counted by how long they were.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper ends of what is counted together, in milliseconds: the usual ones of Prometheus.
const ENDS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Counts while others read.
#[derive(Debug, Default)]
pub struct Times {
    up_to: [AtomicU64; ENDS.len()],
    all: AtomicU64,
    nanos: AtomicU64,
}

/// What was counted up to a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many took no longer than that. Who is in one is in all that follow.
    pub up_to: Vec<(Duration, u64)>,
    pub all: u64,
    pub sum: Duration,
}

impl Times {
    /// What began then has just ended.
    pub fn since(&self, start: Instant) {
        let took = start.elapsed();
        for (end, count) in ENDS.iter().zip(&self.up_to) {
            if took <= Duration::from_millis(*end) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self) -> Counts {
        let all = self.all.load(Ordering::Relaxed);
        // Somebody may be between the two.
        let up_to = |(end, count): (&u64, &AtomicU64)| {
            (Duration::from_millis(*end), count.load(Ordering::Relaxed).min(all))
        };
        Counts {
            up_to: ENDS.iter().zip(&self.up_to).map(up_to).collect(),
            all,
            sum: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_into_all_that_hold_them() {
        let times = Times::default();
        let now = Instant::now();
        for took in [0, 300, 60_000] {
            times.since(now - Duration::from_millis(took));
        }
        let counts = times.counts();
        let up_to: Vec<u64> = counts.up_to.iter().map(|(_, count)| *count).collect();
        assert_eq!(up_to, [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
        assert_eq!((counts.all, counts.sum.as_secs()), (3, 60));
    }
}
