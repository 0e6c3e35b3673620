//! `kakoi policy explain`: whether a policy allows something, and why.

use std::str::FromStr as _;

use kakoi_policy::confinement::DeviceKind;
use kakoi_policy::{Answer, Capability, Question, explain};
use serde_json::Value;

use super::source::composed;
use crate::client::Client;
use crate::failure::Failure;
use crate::listing::pretty;
use crate::output;

/// The arguments of `kakoi policy explain`.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("questions").required(true).multiple(true).args([
    "syscall", "read", "write", "execute", "bind", "connect", "capability", "device",
]))]
pub struct Arguments {
    /// A system call
    #[arg(long, value_name = "NAME")]
    syscall: Vec<String>,
    /// Reading a file or listing a folder
    #[arg(long, value_name = "PATH")]
    read: Vec<String>,
    /// Writing, making or removing a file
    #[arg(long, value_name = "PATH")]
    write: Vec<String>,
    /// Running a program
    #[arg(long, value_name = "PATH")]
    execute: Vec<String>,
    /// Listening on a TCP port
    #[arg(long, value_name = "PORT")]
    bind: Vec<u16>,
    /// Connecting to a TCP port
    #[arg(long, value_name = "PORT")]
    connect: Vec<u16>,
    /// Holding a capability
    #[arg(long, value_name = "NAME")]
    capability: Vec<String>,
    /// Using a device, by path or as in c:188:0
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// How answers are written: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// The policy: a file, or a name
    #[arg(value_name = "FILE|NAME")]
    policy: String,
}

/// A question that cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// No capability.
    #[error("--capability {text:?}: {words}")]
    Capability {
        /// What was written.
        text: String,
        /// What is wrong.
        words: String,
    },
    /// No device.
    #[error("--device {text:?} is neither an absolute path nor KIND:MAJOR:MINOR, as in c:188:0")]
    Device {
        /// What was written.
        text: String,
    },
    /// No path.
    #[error("--{flag} {text:?} is not an absolute path")]
    Path {
        /// The flag.
        flag: &'static str,
        /// What was written.
        text: String,
    },
}

/// Answers the questions.
pub async fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let questions = questions(arguments)?;
    let policy = composed(&arguments.policy, client).await?;
    let answers: Vec<Answer> = questions
        .iter()
        .map(|question| explain(&policy, question))
        .collect();
    if arguments.format == "json" {
        let list: Result<Vec<Value>, _> = answers.iter().map(serde_json::to_value).collect();
        let list = list.map_err(crate::listing::ListingError::Json)?;
        output::print(&pretty(&Value::Array(list))?)?;
    } else {
        let texts: Vec<String> = answers.iter().map(ToString::to_string).collect();
        output::line(&texts.join("\n\n"))?;
    }
    Ok(0)
}

fn questions(arguments: &Arguments) -> Result<Vec<Question>, QuestionError> {
    let mut questions = Vec::new();
    for name in &arguments.syscall {
        questions.push(Question::SystemCall {
            name: name.clone(),
            arguments: None,
        });
    }
    for path in &arguments.read {
        questions.push(Question::Read(absolute("read", path)?));
    }
    for path in &arguments.write {
        questions.push(Question::Write(absolute("write", path)?));
    }
    for path in &arguments.execute {
        questions.push(Question::Execute(absolute("execute", path)?));
    }
    questions.extend(arguments.bind.iter().map(|port| Question::Bind(*port)));
    questions.extend(arguments.connect.iter().map(|port| Question::Connect(*port)));
    for text in &arguments.capability {
        let capability = Capability::from_str(text).map_err(|error| QuestionError::Capability {
            text: text.clone(),
            words: error.to_string(),
        })?;
        questions.push(Question::Capability(capability));
    }
    for text in &arguments.device {
        questions.push(device(text).ok_or_else(|| QuestionError::Device { text: text.clone() })?);
    }
    Ok(questions)
}

fn absolute(flag: &'static str, path: &str) -> Result<String, QuestionError> {
    if path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Err(QuestionError::Path {
            flag,
            text: path.to_owned(),
        })
    }
}

fn device(text: &str) -> Option<Question> {
    if text.starts_with('/') {
        return Some(Question::Device(text.to_owned()));
    }
    let mut parts = text.split(':');
    let kind = match parts.next()? {
        "c" => DeviceKind::Char,
        "b" => DeviceKind::Block,
        _ => return None,
    };
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts
        .next()
        .is_none()
        .then_some(Question::DeviceNumbers { kind, major, minor })
}
