//! What is said about containers and about lists of all there is: typed at Debian's dockerd and at ours.

use crate::networks::words::as_docker_says_it;

#[test]
fn of_lists() {
    as_docker_says_it(include_str!("words/lists.txt"));
}
