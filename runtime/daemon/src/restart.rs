//! When an ended container is started again: a pure decision.

use std::time::Duration;

use kakoi_api::container::RestartPolicy;

use crate::refusal::{Answer, Refusal};

/// The first wait, and the longest; each wait doubles the one before. Docker's figures.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A run of this length shows that the container works: waits start anew.
const STEADY: Duration = Duration::from_secs(10);

/// A restart policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Never.
    No,
    /// After a failure, at most so many times in a row; 0 means any number.
    OnFailure(u32),
    /// Always; after a reboot even when a person had stopped it.
    Always,
    /// Always, unless a person stopped it.
    UnlessStopped,
}

impl Policy {
    /// Reads the wire's form.
    pub fn parse(wire: &RestartPolicy) -> Answer<Self> {
        let count = u32::try_from(wire.maximum_retry_count)
            .map_err(|_| Refusal::bad("invalid restart policy: maximum retry count cannot be negative"))?;
        let policy = match wire.name.as_str() {
            "" | "no" => Self::No,
            "on-failure" => return Ok(Self::OnFailure(count)),
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            other => {
                return Err(Refusal::bad(format!(
                    "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
                )));
            }
        };
        if count > 0 {
            return Err(Refusal::bad(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
        Ok(policy)
    }
}

/// What is known of a container that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its exit code.
    pub exit_code: i32,
    /// Whether a person stopped or killed it.
    pub stopped_by_hand: bool,
    /// How often it was started again already.
    pub restarts: u32,
    /// How long it ran.
    pub ran: Duration,
    /// The last wait; zero for none.
    pub last_wait: Duration,
}

/// How long to wait before the container is started again; `None` leaves it as it is.
pub fn next_start(policy: Policy, ended: &Ended) -> Option<Duration> {
    let again = match policy {
        Policy::No => false,
        Policy::OnFailure(max) => {
            !ended.stopped_by_hand && ended.exit_code != 0 && (max == 0 || ended.restarts < max)
        }
        Policy::Always | Policy::UnlessStopped => !ended.stopped_by_hand,
    };
    again.then(|| {
        if ended.last_wait.is_zero() || ended.ran >= STEADY {
            BACKOFF_MIN
        } else {
            (ended.last_wait * 2).min(BACKOFF_MAX)
        }
    })
}

/// Whether a container that is down when the daemon comes up is started.
pub fn starts_at_boot(policy: Policy, exit_code: i32, was_running: bool, stopped_by_hand: bool) -> bool {
    match policy {
        Policy::No => false,
        Policy::OnFailure(_) => was_running && exit_code != 0 && !stopped_by_hand,
        Policy::Always => true,
        Policy::UnlessStopped => !stopped_by_hand,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASH: Ended = Ended {
        exit_code: 1,
        stopped_by_hand: false,
        restarts: 0,
        ran: Duration::from_secs(1),
        last_wait: Duration::ZERO,
    };

    #[test]
    fn waits_double_up_to_a_minute_and_start_anew_after_a_steady_run() {
        let mut ended = CRASH;
        let mut waits = Vec::new();
        for _ in 0..12 {
            ended.last_wait = next_start(Policy::Always, &ended).expect("always");
            waits.push(ended.last_wait.as_millis());
        }
        assert_eq!(
            waits,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000
            ]
        );
        ended.ran = STEADY;
        assert_eq!(next_start(Policy::Always, &ended), Some(BACKOFF_MIN));
    }

    #[test]
    fn every_policy_and_what_it_refuses() {
        let clean = Ended {
            exit_code: 0,
            ..CRASH
        };
        let by_hand = Ended {
            stopped_by_hand: true,
            ..CRASH
        };
        assert_eq!(next_start(Policy::No, &CRASH), None);
        assert!(next_start(Policy::OnFailure(0), &CRASH).is_some());
        assert_eq!(next_start(Policy::OnFailure(0), &clean), None);
        assert!(next_start(Policy::OnFailure(2), &Ended { restarts: 1, ..CRASH }).is_some());
        assert_eq!(
            next_start(Policy::OnFailure(2), &Ended { restarts: 2, ..CRASH }),
            None
        );
        for policy in [Policy::Always, Policy::UnlessStopped] {
            assert!(next_start(policy, &clean).is_some());
            assert_eq!(next_start(policy, &by_hand), None);
        }
        assert!(starts_at_boot(Policy::Always, 0, false, true));
        assert!(!starts_at_boot(Policy::UnlessStopped, 0, false, true));
        assert!(starts_at_boot(Policy::UnlessStopped, 0, true, false));
        assert!(starts_at_boot(Policy::OnFailure(0), 137, true, false));
        assert!(!starts_at_boot(Policy::OnFailure(0), 0, true, false));
        assert!(!starts_at_boot(Policy::No, 137, true, false));
    }

    #[test]
    fn reads_the_wire_and_refuses_nonsense() {
        let wire = |name: &str, count| RestartPolicy {
            name: name.into(),
            maximum_retry_count: count,
        };
        assert_eq!(Policy::parse(&wire("", 0)).expect("valid"), Policy::No);
        assert_eq!(
            Policy::parse(&wire("on-failure", 3)).expect("valid"),
            Policy::OnFailure(3)
        );
        for (name, count) in [("sometimes", 0), ("always", 1), ("on-failure", -1)] {
            assert!(Policy::parse(&wire(name, count)).is_err(), "{name}:{count}");
        }
    }
}
