//! Managed plugins. None can be installed yet, so that there are none, and none is found.

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{any, get};
use stdx::Error;

use crate::error::Refusal;
use crate::request::Query;
use crate::stream;

pub(crate) fn routes() -> Router {
    Router::new().route("/plugins", get(list)).route("/plugins/{*rest}", any(missing))
}

async fn list(query: Query) -> Result<Response, Refusal> {
    let filters = query.filters()?;
    filters.allow(&["capability", "enabled"])?;
    filters.flag("enabled")?;
    Ok(stream::ok(&NONE))
}

const NONE: [(); 0] = [];

async fn missing(Path(rest): Path<String>) -> Refusal {
    Error::not_found(format!("plugin {:?} not found", name(&rest))).into()
}

/// What is asked about, without what is asked of it. A push means a tag, also where none is said.
fn name(rest: &str) -> String {
    const VERBS: [&str; 6] = ["json", "enable", "disable", "set", "push", "upgrade"];
    match rest.rsplit_once('/') {
        Some((name, "push")) if !name.rsplit('/').next().is_some_and(|last| last.contains(':')) => {
            format!("{name}:latest")
        }
        Some((name, verb)) if VERBS.contains(&verb) => name.to_owned(),
        _ => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (rest, expected) in [
            ("x", "x"),
            ("x/json", "x"),
            ("me/x:1/set", "me/x:1"),
            ("me/x", "me/x"),
            ("x/push", "x:latest"),
            ("host:5000/x/push", "host:5000/x:latest"),
            ("x:1/push", "x:1"),
        ] {
            assert_eq!(name(rest), expected, "{rest}");
        }
    }
}
