//! The built binary under real clients. Each test has a daemon of its own and ends with a strict check of it.

mod boot;
mod commit;
mod containers;
mod copy;
mod crash;
mod daemon;
mod distribution;
mod escapes;
mod foreign;
mod health;
mod hostile;
mod images;
mod input;
mod inside;
#[cfg(test)]
mod isolation;
mod logging;
mod metrics;
mod names;
mod network_plugins;
mod networks;
mod outbound;
mod overlay;
mod publish;
mod races;
mod resources;
mod run;
mod runc;
mod secrets;
mod streams;
mod transcript;
mod uml;
mod userns;
mod volume_plugins;
mod volumes;
mod watching;
