//! Connections: how many, how long, how slow.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, Sleep},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::Peer;
use crate::boot::{
    places::Places,
    seldom::{Note, Seldom},
};

/// Connections at a time, over all clients. Each idle one takes some kB.
const CONNECTIONS: usize = 4096;
/// Connections of one address at a time: firmware, iPXE and agent use one to four.
const CONNECTIONS_PER_CLIENT: usize = 64;
/// For a request's header and for the TLS handshake; also how long an idle connection is kept. Option ROMs need seconds when
/// the wire loses packets.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// A client that takes nothing for so long is gone. An agent stops reading while its disk flushes its cache, which took 40 s
/// on slow disks; it can resume by range if it was cut off.
const STALL_TIME: Duration = Duration::from_secs(120);
/// Largest request header.
const HEADER_SIZE: usize = 16 << 10;

/// Serves `router` on `listener` for ever, over TLS if there is an acceptor; connections end with it.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    let (room, clients) = (Arc::new(Semaphore::new(CONNECTIONS)), Places::new(CONNECTIONS_PER_CLIENT));
    let mut failures = Seldom::default();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if failures.note(error.kind(), std::time::Instant::now()) == Note::One {
                    tracing::warn!(%error, "HTTP accept");
                }
                // Out of file descriptors: waiting lets others end.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = clients.enter(peer.ip()) else {
            tracing::debug!(%peer, "too many connections of one client");
            continue;
        };
        let (tls, router) = (tls.clone(), router.clone());
        connections.spawn(async move {
            let _held = (permit, place);
            let _ = stream.set_nodelay(true);
            let ended = match tls {
                None => connection(stream, peer, router).await,
                Some(tls) => match tokio::time::timeout(HEADER_TIME, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, peer, router).await,
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("the TLS handshake took too long".to_owned()),
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, error, "HTTP connection");
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr, router: Router) -> Result<(), String> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        router.clone().oneshot(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_SIZE).max_headers(64);
    let stream = Patient { stream, stalled: None };
    builder.serve_connection(TokioIo::new(stream), service).await.map_err(|error| error.to_string())
}

/// A stream whose writes fail when the other end takes nothing for [`STALL_TIME`].
struct Patient<S> {
    stream: S,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn watch<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let sleep = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + STALL_TIME)));
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(polled, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(polled, context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
