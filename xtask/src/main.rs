//! Chores that shell is too weak for.
fn main() {}
