//! Images.

use axum::Router;

pub(crate) fn routes<T>(_: T) -> Router {
    Router::new()
}
