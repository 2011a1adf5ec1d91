//! A client that means harm, or is broken: whatever it sends, it gets an answer of its own, nobody else notices, and the
//! daemon stays the process it was.

mod authorization;
mod canaries;
mod hangups;
mod history;
mod http;
mod names;
mod permissions;
mod schema;

use serde_json::json;
use testkit::House;

/// Numbers that need not be good: xorshift, from a seed that a failure shows.
struct Dice(u64);

impl Dice {
    /// From the clock, or from `GANTRY_SEED`.
    #[expect(
        clippy::disallowed_methods,
        clippy::print_stderr,
        reason = "tests are told by their environment what to repeat"
    )]
    fn new() -> Self {
        let seed = std::env::var("GANTRY_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.expect("it is late").as_nanos() as u64 | 1
        });
        eprintln!("GANTRY_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// A container that has nothing to do with it, and must not notice.
fn bystander(house: &House) {
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "3600"], "HostConfig": {"NetworkMode": "none"},
    });
    let made = house.api("POST", "/containers/create?name=bystander", Some(&body));
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(house.api("POST", "/containers/bystander/start", None).status, 204);
}

/// The daemon is who it was, and so is the bystander.
fn unharmed(house: &House, pid: u32) {
    assert_eq!(house.pid(), pid);
    assert_eq!(house.api("GET", "/_ping", None).text(), "OK");
    let state = &house.api("GET", "/containers/bystander/json", None).json()["State"];
    assert_eq!(state["Running"], true, "{state}");
}
