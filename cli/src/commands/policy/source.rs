//! Where policies come from: files, the shipped profiles, and a daemon that keeps others.
//!
//! Owns the search. Invariant: a running daemon is asked, none is started for it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kakoi_policy::{Composed, Diagnostic, Diagnostics, Policy, Resolver, compose, parse, shipped};

use crate::client::{Client, ClientError, Target};
use crate::create::{PolicyError, is_file_name, read_policy};

/// How many parents are fetched from a daemon: more than the language allows below each other.
const PARENTS_MAX: usize = 32;

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file.
    #[error(transparent)]
    File(#[from] PolicyError),
    /// The document; its findings have places of their own.
    #[error(transparent)]
    Document(#[from] Diagnostics),
    /// The daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody knows the name.
    #[error(
        "there is no policy {name:?}: 'kakoi policy ls' lists those there are, and a file is written with its ending .yaml or a slash"
    )]
    Unknown {
        /// Which.
        name: String,
    },
}

/// A policy's name in messages, and its text.
pub async fn text_of(name: &str, client: &Client) -> Result<(String, String), SourceError> {
    if is_file_name(name) {
        return Ok((name.to_owned(), read_policy(name)?));
    }
    if let Some(profile) = shipped::find(name) {
        return Ok((profile.file(), profile.text.to_owned()));
    }
    match kept(name, client).await? {
        Some(text) => Ok((name.to_owned(), text)),
        None => Err(SourceError::Unknown {
            name: name.to_owned(),
        }),
    }
}

/// A policy with everything it extends.
pub async fn composed(name: &str, client: &Client) -> Result<Composed, SourceError> {
    let (file, text) = text_of(name, client).await?;
    let policy = parse(&file, &text)?;
    Ok(compose_with(&policy, client).await?)
}

/// Composes; parents that a daemon keeps are fetched one after another, as they turn out to be needed.
pub async fn compose_with(policy: &Policy, client: &Client) -> Result<Composed, Diagnostics> {
    let mut known = Known::default();
    loop {
        let outcome = compose(policy, &known);
        let wanted = known.missed.take();
        match (outcome, wanted) {
            (Err(findings), Some(name)) if known.texts.len() < PARENTS_MAX => {
                // A daemon that fails to answer is no reason to say less about the policy.
                match kept(&name, client).await {
                    Ok(Some(text)) => known.texts.insert(name, text),
                    Ok(None) | Err(_) => return Err(findings),
                };
            }
            (outcome, _) => return outcome,
        }
    }
}

/// Parents that nobody knows, of a text with other errors.
pub async fn unknown_parents(file: &str, text: &str, client: &Client) -> Vec<Diagnostic> {
    let mut known = Known::default();
    loop {
        let unknown = kakoi_policy::unknown_parents(file, text, &known);
        let wanted = known.missed.take();
        match wanted {
            Some(name) if known.texts.len() < PARENTS_MAX => match kept(&name, client).await {
                Ok(Some(text)) => known.texts.insert(name, text),
                Ok(None) | Err(_) => return unknown,
            },
            _ => return unknown,
        };
    }
}

async fn kept(name: &str, client: &Client) -> Result<Option<String>, ClientError> {
    match client
        .get_where_running(Target::new("/policies").segment(name))
        .await
    {
        Ok(answer) => Ok(answer.and_then(|answer| answer["Source"].as_str().map(str::to_owned))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Parents that were fetched, and the first that was missed.
#[derive(Default)]
struct Known {
    texts: BTreeMap<String, String>,
    missed: RefCell<Option<String>>,
}

impl Resolver for Known {
    fn resolve(&self, name: &str) -> Option<(String, String)> {
        let found = self.texts.get(name).map(|text| (name.to_owned(), text.clone()));
        if found.is_none() {
            self.missed.borrow_mut().get_or_insert_with(|| name.to_owned());
        }
        found
    }
}
