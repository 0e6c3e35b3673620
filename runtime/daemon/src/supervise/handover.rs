//! A version that takes the place of another without a connection that finds nobody.
//!
//! It stands its trial beside what runs, with addresses of its own and nothing published; then it is given the ports and names, connections of before have
//! their time to end, and only then what ran is stopped. Whoever is killed in between leaves ports with one of the two, and the phase that is on
//! disk says who is to have them. Where it fails, what runs was never touched.

use std::time::Duration;

use kakoi_policy::app::Handover;
use tokio::time::{Instant, sleep};

use super::act::{Acts, document, trouble};
use super::drive::Act;
use super::table::Release;
use crate::life::container::Phase;

/// How often it is looked whether connections have ended.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

impl Acts {
    /// Whether a version can be tried beside the one that runs: its document wants that, and there is one that runs.
    pub(super) fn may_run_beside(&self, from: &Release, to: &Release) -> Act<bool> {
        let is_wanted = document(to)?.update.handover == Handover::StartThenStop;
        let runs = self.container(from.slot);
        Ok(is_wanted && runs.is_some_and(|container| container.shared().phase == Phase::Running))
    }

    /// Where a version runs beside another: gives it ports and names, and waits for the other's connections to end.
    pub(super) async fn take_over(&self, runs: &Release) -> Act<()> {
        let networks = &self.engine.networks;
        let Some(container) = self
            .container(runs.slot)
            .filter(|own| networks.is_beside(&own.id))
        else {
            return Ok(());
        };
        let other = self.container(runs.slot.other());
        let other = other.filter(|other| other.shared().phase.is_up());
        let record = container.shared().record.clone();
        let from = other.as_ref().map(|other| other.id.as_str());
        let taken = networks.take_over(&self.engine, &record, from).await;
        taken.map_err(|refusal| trouble(&refusal))?;
        let Some(other) = other else { return Ok(()) };
        let until = Instant::now() + Duration::from_millis(document(runs)?.update.drain_ms);
        // Twice in a row: one that was on its way when the ports moved may not be counted yet.
        let mut was_quiet = false;
        while Instant::now() < until {
            match networks.connections(&self.engine, &other.id).await {
                Ok(0) if was_quiet => break,
                Ok(count) => {
                    was_quiet = count == 0;
                    sleep(LOOK_PERIOD).await;
                }
                Err(refusal) => {
                    tracing::warn!(app = self.name, error = %refusal, "ignoring connections that cannot be counted: they end now");
                    break;
                }
            }
        }
        Ok(())
    }
}
