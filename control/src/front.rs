//! Owns the HTTP server through all changes of leadership: who leads answers, and while nobody here
//! does, requests are refused.
//!
//! It must never answer from the state of a leadership that is over. The surprise: it accepts
//! nothing before the first one, so that what connects early waits and is served.

use std::io;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use runtime::admin::{ConnectionMetrics, ServerLimits, serve};
use runtime::task::Tasks;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::store::unavailable;

/// The routes of the leadership that lasts, if one does. Clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Front(watch::Sender<Option<Router>>);

impl Front {
    /// Requests are answered by `routes` from now on; refused where there are none.
    pub(crate) fn put(&self, routes: Option<Router>) {
        self.0.send_replace(routes);
    }

    /// Serves from the first leadership on until `tasks` is cancelled, then drains.
    ///
    /// # Errors
    /// When the server ends.
    pub(crate) async fn serve(
        &self,
        listener: TcpListener,
        limits: ServerLimits,
        metrics: ConnectionMetrics,
        tasks: Tasks,
    ) -> Result<(), io::Error> {
        let mut routes = self.0.subscribe();
        tokio::select! {
            biased;
            () = tasks.token().cancelled() => return Ok(()),
            // The sender lives as long as `self`: waiting cannot fail.
            first = routes.wait_for(Option::is_some) => drop(first),
        }
        let front = self.clone();
        let answer = move |request: Request| {
            let front = front.clone();
            async move { front.answer(request).await }
        };
        serve(
            listener,
            Router::new().fallback(answer),
            limits,
            metrics,
            tasks,
        )
        .await
    }

    async fn answer(&self, request: Request) -> Response {
        let routes = self.0.borrow().clone();
        match routes {
            Some(routes) => routes
                .oneshot(request)
                .await
                .unwrap_or_else(|never| match never {}),
            None => unavailable("this replica does not lead now").into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http::StatusCode;
    use http::header::RETRY_AFTER;

    use super::*;

    async fn ask(front: &Front) -> Response {
        let request = Request::get("/v1/tenants").body(Body::empty()).unwrap();
        front.answer(request).await
    }

    #[tokio::test]
    async fn requests_are_refused_while_nobody_leads_and_answered_by_who_does() {
        let front = Front::default();
        for status in [StatusCode::OK, StatusCode::NOT_MODIFIED] {
            let refused = ask(&front).await;
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(refused.headers().contains_key(RETRY_AFTER));
            let routes = Router::new().route("/v1/tenants", get(move || async move { status }));
            front.put(Some(routes));
            assert_eq!(ask(&front).await.status(), status);
            front.put(None);
        }
    }
}
