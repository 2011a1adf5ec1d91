//! What tokio could have had: the bridge to code that blocks, work that outlives its caller, work done once per key.
//!
//! Sits on stdx; serves the rooms that await. It is the wall between them and the rooms that block.

mod once;

pub use once::OncePerKey;
use stdx::{Error, Result};
use tracing::Instrument;

/// Runs a function that waits on the kernel or the disk on a thread made for that. Carries the tracing span; a panic in
/// there is a panic here.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(value) => value,
        Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
        Err(_) => panic!("the runtime is shutting down under a request"),
    }
}

/// Runs a short function that may wait on a disk, here. Others of this thread go on on another one: a disk that does not
/// answer stops whoever asked it, and nobody else.
pub fn waiting<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Runs work to its end even if the caller goes away: a handler is dropped when its client hangs up, and a transition
/// once begun must still reach the place where it gives everything back.
pub async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(outcome) => outcome,
        Err(failure) if failure.is_panic() => {
            Err(Error::internal("internal error: a request panicked; see the daemon's log"))
        }
        Err(_) => Err(Error::unavailable("the daemon is shutting down")),
    }
}
