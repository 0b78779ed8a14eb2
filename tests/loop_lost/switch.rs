//! A switch that carries TCP, and can go dark: nothing is refused and nothing arrives, in either direction, until it comes back.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

pub struct Switch {
    lit: watch::Sender<bool>,
    /// Clients on another switch.
    elsewhere: Arc<Mutex<Vec<IpAddr>>>,
}

impl Switch {
    pub fn new() -> Self {
        Self { lit: watch::Sender::new(true), elsewhere: Arc::default() }
    }

    pub fn go_dark(&self) {
        self.lit.send_replace(false);
    }

    pub fn come_back(&self) {
        self.lit.send_replace(true);
    }

    /// What goes dark here does not concern the client at `address`.
    pub fn spare(&self, address: IpAddr) {
        self.elsewhere.lock().unwrap().push(address);
    }

    /// A cable from `at` to `to`. Who is at the other end sees the client's own address, as through a real switch.
    pub async fn cable(&self, at: SocketAddr, to: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (lit, elsewhere) = (self.lit.subscribe(), self.elsewhere.clone());
        tokio::spawn(async move {
            while let Ok((client, peer)) = listener.accept().await {
                let spared = elsewhere.lock().unwrap().contains(&peer.ip());
                let lit = if spared { watch::channel(true).1 } else { lit.clone() };
                tokio::spawn(carry(client, peer, to, lit));
            }
        });
        at
    }
}

async fn carry(client: TcpStream, peer: SocketAddr, to: SocketAddr, mut lit: watch::Receiver<bool>) {
    if lit.wait_for(|lit| *lit).await.is_err() {
        return;
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(peer.ip(), 0)).unwrap();
    let Ok(server) = socket.connect(to).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(forward(from_client, to_server, lit.clone()), forward(from_server, to_client, lit));
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut lit: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if lit.wait_for(|lit| *lit).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
