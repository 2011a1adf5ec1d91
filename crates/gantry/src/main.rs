//! The binary: which hat am I wearing.
fn main() {}
