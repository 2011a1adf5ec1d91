//! The room against a real kernel: every test on a host of its own.

#[cfg(test)]
mod apart;
mod attach;
mod connect;
mod create;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod egress;
mod firewall;
#[cfg(test)]
mod flows;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod names;
mod overlay;
#[cfg(test)]
mod ports;
#[cfg(test)]
mod rate;
mod recover;
mod remote;
mod remote_ipam;
mod speed;
mod user_chain;
