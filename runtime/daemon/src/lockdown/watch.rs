//! When it is looked at everything.
//!
//! One task, which sleeps where nothing is enforced. It looks when the kernel tells that something was plugged in, when a container starts or ends (its
//! ports), when somebody takes the packet filter away, at the end of a trial, and from time to time, since most of it tells nothing by itself.

use std::sync::Arc;
use std::time::Duration;

use kakoi_host::lockdown::Uevents;
use kakoi_net::firewall::{DeviceFilter, Watch};
use tokio::sync::{Notify, broadcast};

use super::{pace, round};
use crate::engine::Engine;
use crate::refusal::{Answer, Refusal, chain};

/// What the thread that waits for the kernel needs.
const STACK_BYTES: usize = 64 << 10;
/// Until another look after one that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// Takes up what the journal says, and watches from then on.
pub fn begin(engine: &Arc<Engine>) {
    let engine = engine.clone();
    tokio::spawn(async move {
        let plugged = Arc::new(Notify::new());
        let mut events = engine.events.listen().1;
        let mut is_first = true;
        let mut filter = None;
        let mut hears = false;
        loop {
            let looked = blocking(&engine, move |engine| {
                round(engine, is_first)?;
                pace(engine)
            });
            let wait = match looked.await {
                Ok(wait) => wait,
                Err(refusal) => {
                    let said = chain(&refusal);
                    tracing::error!(
                        error = said,
                        "the device's interfaces cannot be looked at; trying again"
                    );
                    engine.lockdown.inner().trouble = said;
                    Some(AGAIN)
                }
            };
            is_first = false;
            match wait {
                None => {
                    filter = None;
                    engine.lockdown.kick.notified().await;
                }
                Some(wait) => {
                    hears = hears || listen(plugged.clone());
                    if filter.is_none() {
                        filter = watch(&engine);
                    }
                    until_due(&engine, wait, &plugged, &mut filter, &mut events).await;
                }
            }
        }
    });
}

async fn blocking<T: Send + 'static>(
    engine: &Arc<Engine>,
    work: impl FnOnce(&Arc<Engine>) -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let engine = engine.clone();
    tokio::task::spawn_blocking(move || work(&engine))
        .await
        .map_err(|cause| Refusal::failed("the lockdown failed", cause))?
}

fn watch(engine: &Engine) -> Option<Watch> {
    let opened = DeviceFilter::open(engine.networks.scope()).and_then(|filter| filter.watch());
    opened
        .inspect_err(|error| tracing::warn!(%error, "ignoring that the packet filter cannot be watched"))
        .ok()
}

/// Has a thread wait for the kernel. Where it cannot, the looks from time to time remain.
fn listen(plugged: Arc<Notify>) -> bool {
    let uevents = match Uevents::open() {
        Ok(uevents) => uevents,
        Err(error) => {
            tracing::warn!(%error, "ignoring that the kernel does not tell what is plugged in");
            return false;
        }
    };
    let wait = move || {
        while uevents.wait().is_ok() {
            plugged.notify_one();
        }
    };
    std::thread::Builder::new()
        .name("uevents".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(wait)
        .is_ok()
}

/// Waits for a reason to look.
async fn until_due(
    engine: &Arc<Engine>,
    wait: Duration,
    plugged: &Notify,
    filter: &mut Option<Watch>,
    events: &mut broadcast::Receiver<kakoi_api::system::Event>,
) {
    let lost = async {
        match filter {
            Some(watch) => watch.lost().await.is_err(),
            None => std::future::pending().await,
        }
    };
    let ports = async {
        loop {
            match events.recv().await {
                Ok(event)
                    if event.kind == "container" && matches!(event.action.as_str(), "start" | "die") =>
                {
                    return;
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = engine.lockdown.kick.notified() => {}
        () = plugged.notified() => {}
        failed = lost => {
            if failed {
                *filter = None;
                tokio::time::sleep(AGAIN).await;
            }
        }
        () = ports => {
            let told = blocking(engine, |engine| {
                engine.lockdown.with(engine, |keeper| {
                    keeper.ports_changed().map_err(|error| Refusal::failed("the packet filter was not told", error))
                })
            });
            if let Err(refusal) = told.await {
                tracing::error!(error = chain(&refusal), "published ports are not open yet");
            }
        }
    }
}
