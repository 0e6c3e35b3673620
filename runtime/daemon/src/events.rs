//! What happened: a bounded ring for `since`, and a channel for listeners.
//!
//! Invariant: an event never waits for a listener; one that is too slow loses the oldest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use jiff::Timestamp;
use kakoi_api::system::{Actor, Event};
use tokio::sync::broadcast;

/// Events kept for `since`: Docker's figure.
const RING_EVENTS_MAX: usize = 256;
/// Events that wait for a slow listener.
const LISTENER_EVENTS_MAX: usize = 256;

/// All that happened lately.
#[derive(Debug)]
pub struct Events {
    ring: Mutex<VecDeque<Event>>,
    live: broadcast::Sender<Event>,
}

impl Events {
    /// Nothing happened yet.
    pub fn new() -> Self {
        Self {
            ring: Mutex::new(VecDeque::new()),
            live: broadcast::channel(LISTENER_EVENTS_MAX).0,
        }
    }

    /// Tells what happened.
    pub fn tell(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let now = Timestamp::now();
        let image = attributes.get("image").filter(|_| kind == "container").cloned();
        let old_form = matches!(kind, "container" | "image");
        let event = Event {
            status: if old_form { action.into() } else { String::new() },
            id: if old_form { id.into() } else { String::new() },
            from: image.unwrap_or_default(),
            kind: kind.into(),
            action: action.into(),
            actor: Actor {
                id: id.into(),
                attributes,
            },
            scope: "local".into(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        };
        let mut ring = self.ring.lock().expect("no panic while locked");
        if ring.len() == RING_EVENTS_MAX {
            ring.pop_front();
        }
        ring.push_back(event.clone());
        // An error means that nobody listens.
        self.live.send(event).ok();
    }

    /// What was kept, and what comes from now on, without a gap or a double between them.
    pub fn listen(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let ring = self.ring.lock().expect("no panic while locked");
        (ring.iter().cloned().collect(), self.live.subscribe())
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_bounded_past_and_tells_the_present() {
        let events = Events::new();
        for number in 0..300 {
            events.tell("container", "start", &number.to_string(), BTreeMap::new());
        }
        let (past, mut live) = events.listen();
        assert_eq!(past.len(), RING_EVENTS_MAX);
        assert_eq!(past.last().expect("some").id, "299");
        assert!(live.try_recv().is_err());
        events.tell("volume", "create", "v", BTreeMap::new());
        let event = live.try_recv().expect("one");
        assert_eq!((event.kind.as_str(), event.status.as_str()), ("volume", ""));
    }
}
