//! The environment, read here and nowhere else in the command.

#[expect(clippy::disallowed_methods, reason = "this is the command's one door to its environment")]
pub(crate) fn var(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// A variable that is there and says something.
pub(crate) fn non_empty(name: &str) -> Option<String> {
    var(name).filter(|value| !value.is_empty())
}

/// `GANTRY_X`, else `DOCKER_X`.
pub(crate) fn ours_or_dockers(name: &str) -> Option<String> {
    non_empty(&format!("GANTRY_{name}")).or_else(|| non_empty(&format!("DOCKER_{name}")))
}

pub(crate) fn home() -> std::path::PathBuf {
    non_empty("HOME").map_or_else(|| "/".into(), Into::into)
}
