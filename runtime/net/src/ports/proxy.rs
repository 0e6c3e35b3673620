//! Carrying connections and datagrams between a reserved port and its target, or refusing them.
//!
//! Owns how many of them one port carries and for how long. Everything that was begun ends with the task that these functions are.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections of one port at a time, each with two sockets and 16 KiB; the next ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;

/// Senders of datagrams of one port at a time, each with 64 KiB; what others send is lost meanwhile.
const SENDERS_MAX: usize = 64;

/// Datagrams of one sender that wait; more are lost, as datagrams are.
const WAITING_MAX: usize = 16;

/// How long a sender is remembered after the last datagram of either side: dockerd's number.
const SENDER_TIME: Duration = Duration::from_secs(90);

/// How long a target has to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(30);

/// Before a socket that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// The largest datagram there is.
const DATAGRAM_BYTES: usize = 65_535;

pub(super) async fn carry_connections(listener: TcpListener, targets: watch::Receiver<SocketAddr>) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if carried.len() < CONNECTIONS_MAX => match accepted {
                Ok((client, _)) => {
                    let target = *targets.borrow();
                    carried.spawn(async move {
                        if let Err(error) = carry(client, target).await {
                            tracing::debug!(%target, %error, "a carried connection broke off");
                        }
                    });
                }
                Err(error) => pause(&error).await,
            },
            Some(_) = carried.join_next() => {}
        }
    }
}

pub(super) async fn refuse_connections(listener: TcpListener) {
    loop {
        match listener.accept().await {
            // Reset, not closed: with nothing left to send, closing says that all went well.
            Ok((client, _)) => {
                if let Err(error) = client.set_zero_linger() {
                    tracing::debug!(%error, "an early connection is closed, not reset");
                }
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut server = timeout(CONNECT_TIME, TcpStream::connect(target)).await??;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Out of descriptors or memory: trying again at once would only burn the processor.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "ignoring a failure of a published port's socket");
    tokio::time::sleep(PAUSE).await;
}

pub(super) async fn carry_datagrams(socket: UdpSocket, mut targets: watch::Receiver<SocketAddr>) {
    let socket = Arc::new(socket);
    let mut senders: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut carried = JoinSet::new();
    let mut bytes = vec![0; DATAGRAM_BYTES];
    loop {
        let target = *targets.borrow_and_update();
        tokio::select! {
            // No datagram goes to a target of before; one that nobody changes any more goes on.
            Ok(()) = targets.changed() => {
                carried.abort_all();
                senders.clear();
            }
            received = socket.recv_from(&mut bytes) => match received {
                Ok((count, from)) => {
                    if !senders.contains_key(&from) && senders.len() < SENDERS_MAX {
                        let (sender, waiting) = mpsc::channel(WAITING_MAX);
                        senders.insert(from, sender);
                        let socket = socket.clone();
                        carried.spawn(async move {
                            if let Err(error) = exchange(&socket, from, waiting, target).await {
                                tracing::debug!(%target, %error, "datagrams are carried no further");
                            }
                            from
                        });
                    }
                    if let Some(sender) = senders.get(&from)
                        && sender.try_send(bytes[..count].to_vec()).is_err()
                    {
                        tracing::debug!(%target, "a datagram is lost: its sender is too fast");
                    }
                }
                Err(error) => pause(&error).await,
            },
            Some(ended) = carried.join_next() => {
                // One that was aborted has no sender any more.
                if let Ok(from) = ended {
                    senders.remove(&from);
                }
            }
        }
    }
}

/// Carries what one sender and the target tell each other, until neither does any more.
async fn exchange(
    socket: &UdpSocket,
    sender: SocketAddr,
    mut waiting: mpsc::Receiver<Vec<u8>>,
    target: SocketAddr,
) -> io::Result<()> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let inner = UdpSocket::bind((any, 0)).await?;
    inner.connect(target).await?;
    let mut bytes = vec![0; DATAGRAM_BYTES];
    loop {
        let carried = timeout(SENDER_TIME, async {
            tokio::select! {
                Some(datagram) = waiting.recv() => inner.send(&datagram).await.map(drop),
                received = inner.recv(&mut bytes) => match received {
                    Ok(count) => socket.send_to(&bytes[..count], sender).await.map(drop),
                    Err(error) => Err(error),
                },
            }
        });
        match carried.await {
            Ok(Ok(())) => {}
            // Nobody listens there yet: the next datagram may find somebody.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        }
    }
}
