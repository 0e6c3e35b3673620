//! Answering one namespace's queries.
//!
//! Owns what is answered from [`Names`] and what is forwarded, and how much of either one container may ask for at a time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Names;
use super::forward::{self, Transport};
use super::host::Upstreams;
use super::wire::{self, Code, Query, Unusable, name_data, reverse};

/// Queries of one container that are forwarded at a time; the next ones are answered with a failure. Each holds a socket and 4 KiB for at
/// most the time of all attempts.
const FORWARDED_MAX: usize = 64;

/// Connections of one container at a time; the next ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;

/// A connection without a query for so long is closed.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// Before a socket that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Of one query: a name, its type, and options.
const QUERY_BYTES_MAX: usize = 4096;

/// How long our own answers may be kept: dockerd's number.
const OWN_SECONDS: u32 = 600;

/// Everything needed for an answer.
pub(super) struct Answering {
    names: Arc<dyn Names>,
    upstreams: Upstreams,
    forwarded: Semaphore,
    turn: AtomicUsize,
}

impl Answering {
    pub fn new(names: Arc<dyn Names>, upstreams: Upstreams) -> Arc<Self> {
        Arc::new(Self {
            names,
            upstreams,
            forwarded: Semaphore::new(FORWARDED_MAX),
            turn: AtomicUsize::new(0),
        })
    }

    /// An answer that needs nobody else, or the query to forward.
    fn answer_own(&self, query: &Query) -> Option<Vec<u8>> {
        if !query.is_internet {
            return Some(query.reply(Code::Refused, &[], 0));
        }
        let name = query.name.as_deref().unwrap_or_default();
        if query.kind == wire::PTR
            && let Some(name) = reverse(name).and_then(|address| self.names.name(address))
        {
            let data = name_data(&name)?;
            return Some(query.reply(Code::NoError, &[(wire::PTR, data)], OWN_SECONDS));
        }
        if let Some(addresses) = self.names.addresses(name).filter(|_| !name.is_empty()) {
            // A name that is there has no addresses of the other family, and is there: NXDOMAIN would make resolvers give up on both.
            return Some(query.reply(Code::NoError, &self.records(query.kind, &addresses), OWN_SECONDS));
        }
        (!self.names.may_ask(name)).then(|| query.reply(Code::Refused, &[], 0))
    }

    /// Addresses of the asked family, each time another one first.
    fn records(&self, kind: u16, addresses: &[IpAddr]) -> Vec<(u16, Vec<u8>)> {
        let mut records: Vec<_> = addresses
            .iter()
            .map(|address| match address {
                IpAddr::V4(address) => (wire::A, address.octets().to_vec()),
                IpAddr::V6(address) => (wire::AAAA, address.octets().to_vec()),
            })
            .filter(|(family, _)| kind == *family || kind == wire::ANY)
            .collect();
        if !records.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % records.len();
            records.rotate_left(turn);
        }
        records
    }

    async fn forward(&self, query: &Query, bytes: &[u8], transport: Transport) -> Vec<u8> {
        let failure = || query.reply(Code::ServerFailure, &[], 0);
        let Ok(_permit) = self.forwarded.try_acquire() else {
            return failure();
        };
        let upstreams = self.upstreams.now().await;
        let Some(answer) = forward::ask(&upstreams, query, bytes, transport).await else {
            return failure();
        };
        if self.names.wants_resolved() {
            let addresses = query.addresses(&answer);
            if !addresses.is_empty() {
                let (names, name) = (self.names.clone(), query.name.clone().unwrap_or_default());
                let told = tokio::task::spawn_blocking(move || names.resolved(&name, &addresses)).await;
                if told.is_err() {
                    return failure();
                }
            }
        }
        answer
    }
}

/// Answers until it is cancelled, and with it everything that was begun.
pub(super) async fn run(udp: UdpSocket, tcp: TcpListener, answering: Arc<Answering>) {
    tokio::join!(
        serve_datagrams(Arc::new(udp), &answering),
        serve_connections(tcp, &answering)
    );
}

async fn serve_datagrams(udp: Arc<UdpSocket>, answering: &Arc<Answering>) {
    let mut begun = JoinSet::new();
    let mut bytes = vec![0; QUERY_BYTES_MAX];
    loop {
        tokio::select! {
            received = udp.recv_from(&mut bytes) => match received {
                Ok((count, from)) => take_datagram(&mut begun, &udp, answering, &bytes[..count], from),
                Err(error) => pause(&error).await,
            },
            Some(_) = begun.join_next() => {}
        }
    }
}

async fn serve_connections(tcp: TcpListener, answering: &Arc<Answering>) {
    let mut begun = JoinSet::new();
    loop {
        tokio::select! {
            accepted = tcp.accept(), if begun.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let answering = answering.clone();
                    begun.spawn(async move { serve_connection(stream, &answering).await });
                }
                Err(error) => pause(&error).await,
            },
            Some(_) = begun.join_next() => {}
        }
    }
}

/// Out of descriptors or memory: trying again at once would only burn the processor.
async fn pause(error: &std::io::Error) {
    tracing::warn!(%error, "ignoring a failure of the name server's socket");
    tokio::time::sleep(PAUSE).await;
}

/// Answers a datagram at once where nobody has to be asked.
fn take_datagram(
    begun: &mut JoinSet<()>,
    udp: &Arc<UdpSocket>,
    answering: &Arc<Answering>,
    bytes: &[u8],
    from: SocketAddr,
) {
    let query = match Query::parse(bytes) {
        Ok(query) => query,
        Err(Unusable::Answered(answer)) => return send(udp, &answer, from),
        Err(Unusable::Silent) => return,
    };
    if let Some(answer) = answering.answer_own(&query) {
        return send(udp, &fitted(&query, answer), from);
    }
    // What cannot be forwarded now would only wait here: the refusal is cheaper than the task.
    if answering.forwarded.available_permits() == 0 {
        return send(udp, &query.reply(Code::ServerFailure, &[], 0), from);
    }
    let (udp, answering, bytes) = (udp.clone(), answering.clone(), bytes.to_vec());
    begun.spawn(async move {
        let answer = answering.forward(&query, &bytes, Transport::Udp).await;
        send(&udp, &fitted(&query, answer), from);
    });
}

/// An answer as far as a datagram of the asker holds it.
fn fitted(query: &Query, answer: Vec<u8>) -> Vec<u8> {
    if answer.len() > query.datagram_bytes() {
        query.truncated()
    } else {
        answer
    }
}

/// A datagram that the kernel has no room for is lost, as datagrams are: the resolver asks again.
fn send(udp: &UdpSocket, answer: &[u8], to: SocketAddr) {
    if let Err(error) = udp.try_send_to(answer, to) {
        tracing::debug!(%error, "ignoring an answer that was not sent");
    }
}

async fn serve_connection(mut stream: TcpStream, answering: &Answering) {
    while let Ok(Ok(bytes)) = timeout(
        CONNECTION_TIME,
        forward::read_message(&mut stream, QUERY_BYTES_MAX),
    )
    .await
    {
        let answer = match Query::parse(&bytes) {
            Ok(query) => match answering.answer_own(&query) {
                Some(answer) => answer,
                None => answering.forward(&query, &bytes, Transport::Tcp).await,
            },
            Err(Unusable::Answered(answer)) => answer,
            Err(Unusable::Silent) => return,
        };
        let sent = timeout(CONNECTION_TIME, forward::write_message(&mut stream, &answer)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}
