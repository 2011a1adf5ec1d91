//! Signals sent to us that are meant for the container.

use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those passed on, with the kernel's numbers. What stops, faults, or tells of children and pipes is ours.
const FORWARDED: [(&str, i32); 17] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("CONT", 18),
    ("HUP", 1),
    ("INT", 2),
    ("IO", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("TERM", 15),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("XCPU", 24),
];

/// Everything that may arrive, from the moment this is made.
pub(crate) struct Signals(Vec<(&'static str, Signal)>);

impl Signals {
    pub(crate) fn listen() -> Self {
        let listen = |(name, number): (&'static str, i32)| {
            Some((name, signal(SignalKind::from_raw(number)).ok()?))
        };
        Self(FORWARDED.into_iter().filter_map(listen).collect())
    }

    /// The next one's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            for (name, signal) in &mut self.0 {
                if let Poll::Ready(Some(())) = signal.poll_recv(cx) {
                    return Poll::Ready(*name);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The terminal's size has changed.
pub(crate) fn window_changes() -> std::io::Result<Signal> {
    signal(SignalKind::window_change())
}
