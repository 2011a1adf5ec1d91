//! The room's tests: real namespaces, mounts and control groups of our own.

#[cfg(test)]
mod cgroup;
#[cfg(test)]
mod escape;
#[cfg(test)]
mod fields;
#[cfg(test)]
mod seccomp;
#[cfg(test)]
mod stage;

/// Ends the test, aloud, where there is nobody to play with.
macro_rules! skip_unless_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
    };
}
pub(crate) use skip_unless_root;
