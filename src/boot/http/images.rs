//! Image files: ranges, HEAD and Content-Length, never compressed on the way (UEFI and BMCs need the length).

use std::path::Path;

use axum::{Router, http::StatusCode};
use tower_http::services::ServeDir;

/// `/images/…` from `folder`; without one, nothing is there.
pub fn router<S: Clone + Send + Sync + 'static>(folder: Option<&Path>) -> Router<S> {
    match folder {
        Some(folder) => Router::new().nest_service("/images", ServeDir::new(folder).append_index_html_on_directories(false)),
        None => Router::new()
            .route("/images/{*path}", axum::routing::any(|| async { super::text(StatusCode::NOT_FOUND, "no image folder is configured") })),
    }
}
