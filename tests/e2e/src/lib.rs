//! The built binary under real clients: everything is in `tests/it`.
