//! What is said about containers and about lists of all there is, of formats, odd values and updates: typed at Debian's
//! dockerd and at ours.

use crate::networks::words::as_docker_says_it;

#[test]
fn of_lists() {
    as_docker_says_it(include_str!("words/lists.txt"));
}

#[test]
fn of_formats() {
    as_docker_says_it(include_str!("words/formats.txt"));
}

#[test]
fn of_what_scripts_look_at() {
    as_docker_says_it(include_str!("words/scripts.txt"));
}

#[test]
fn of_odd_values() {
    as_docker_says_it(include_str!("words/odd_values.txt"));
}

#[test]
fn of_log_options() {
    as_docker_says_it(include_str!("words/logs.txt"));
}

#[test]
fn of_updates() {
    as_docker_says_it(include_str!("words/updates.txt"));
}
