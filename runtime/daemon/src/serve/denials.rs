//! What a container was refused, and why: `kakoi why`.

use kakoi_api::container::CreateBody;
use kakoi_api::kakoi::{Denial, Denials, PolicyChoice};
use kakoi_policy::confinement::MountSource;
use kakoi_policy::{Composed, Question, explain};

use super::reply::{self, Reply};
use super::router::Asked;
use crate::engine::Engine;
use crate::life::container::Container;
use crate::plan::peers::Peers;
use crate::plan::requests;
use crate::refusal::Answer;

/// `GET /containers/{id}/denials`
pub fn denials(asked: &Asked, id: &str) -> Answer<Reply> {
    let container = asked.engine.containers.find(id)?;
    let last = asked.query.number::<usize>("last")?.unwrap_or(usize::MAX);
    let known = asked.engine.denials.of(&container.id);
    let policy = policy(&asked.engine, &container);
    let denials = known
        .rows
        .into_iter()
        .take(last)
        .map(|row| {
            let question = Question::SystemCall {
                name: row.call.clone(),
                arguments: None,
            };
            let answer = policy.as_ref().map(|policy| explain(policy, &question));
            let (because, rule, remedy) = match answer {
                Some(answer) => (
                    answer.because,
                    answer.rule.map(|rule| rule.to_string()),
                    answer.remedy,
                ),
                None => (String::new(), None, None),
            };
            Denial {
                system_call: row.call,
                program: row.program,
                action: row.action.into(),
                count: i64::try_from(row.count).unwrap_or(i64::MAX),
                first: row.first,
                last: row.last,
                because,
                rule: rule.unwrap_or_default(),
                remedy: remedy.unwrap_or_default(),
            }
        })
        .collect();
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    Ok(reply::ok(&Denials {
        policy: container.shared().record.policy.name.clone(),
        not_heard_because: known.why_not.unwrap_or_default(),
        denials,
        unattributed: count(known.unattributed),
        missed: count(known.missed),
    }))
}

/// The container's policy as it reads now, with the container's flags; `None` where it is not kept, having come with the request.
fn policy(engine: &Engine, container: &Container) -> Option<Composed> {
    let record = container.shared().record.clone();
    let kept = engine.paths.state_dir(&container.id).join(KEPT);
    let source = std::fs::read_to_string(kept).ok();
    let name = match source {
        Some(_) => format!("{}.yaml", record.policy.name),
        None => record.policy.name.clone(),
    };
    let body = CreateBody {
        policy: Some(PolicyChoice { name, source }),
        ..CreateBody::default()
    };
    let composed = engine.shelf().composed(&body).ok()?;
    if composed.name != record.policy.name {
        return None;
    }
    let mounts = record.mounts.iter().map(|point| {
        let source = match point.kind.as_str() {
            "bind" => MountSource::Bind(point.source.clone()),
            "volume" => MountSource::Volume(point.name.clone()),
            _ => MountSource::Tmpfs(None),
        };
        requests::mount(source, &point.destination, !point.rw)
    });
    let wanted = requests::of(&record.host_config, "", mounts.collect(), &Peers::default()).ok()?;
    Some(composed.request(&wanted))
}

/// The file in a container's durable folder that holds a policy which came with the request.
pub const KEPT: &str = "policy.yaml";
