//! `kakoi trust sign`: sign an image in its registry, as cosign and skopeo would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kakoi_api::registry::{Attach, Descriptor, Manifest};
use kakoi_trust::sign::{
    Artifact, Target as Signed, bundle_artifact, classic_artifact, sign_bundle, sign_classic, sign_release,
    signature_tag,
};
use kakoi_trust::{
    Digest, DigestError, JsonError, NameError, PEM_CHARS_MAX, Padding, PrivateKey, PrivateKeyError, Release,
    Repository, Version, VersionError,
};
use serde_json::Value;

use crate::bounded::{self, ReadError};
use crate::client::{Client, ClientError, Target};
use crate::credentials::Credentials;
use crate::failure::Failure;
use crate::output;

/// Where cosign's users keep the password of a key.
const PASSWORD: &str = "COSIGN_PASSWORD";

/// The arguments of `kakoi trust sign`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The private key: PKCS#8 in PEM, or cosign's, whose password stands in COSIGN_PASSWORD
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What an RSA key signs with: pss, or pkcs1v15 as cosign does
    #[arg(long, value_name = "PADDING", default_value = "pss", value_parser = ["pss", "pkcs1v15"])]
    padding: String,
    /// classic: what cosign 2 and skopeo look for; bundle: what cosign 3 does; both
    #[arg(long, value_name = "FORM", default_value = "classic", value_parser = ["classic", "bundle", "both"])]
    form: String,
    /// An annotation that is signed too
    #[arg(long = "annotation", short = 'a', value_name = "NAME=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,
    /// Sign it as this version of a release, in a document of its own
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["form", "annotations"])]
    release: Option<String>,
    /// What is released, where that is not the repository
    #[arg(long, value_name = "NAME", requires = "release")]
    release_name: Option<String>,
    /// The file with credentials, in Docker's format
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    authfile: Option<PathBuf>,
    /// The image, in its registry
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

fn annotation(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key's file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The key needs a password.
    #[error("{} is encrypted: put its password into {PASSWORD}", .path.display())]
    Password {
        /// The file.
        path: PathBuf,
    },
    /// The key.
    #[error("{} is no private key that signs here", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: PrivateKeyError,
    },
    /// What the daemon says of the image.
    #[error("the registry's name or digest of the image")]
    Name(#[from] NameError),
    /// The digest.
    #[error("the registry's digest of the image")]
    Digest(#[from] DigestError),
    /// The version.
    #[error("--release")]
    Version(#[from] VersionError),
    /// No random numbers.
    #[error(transparent)]
    Sign(#[from] kakoi_trust::SignError),
    /// What stands under the tag of signatures is none.
    #[error("what the registry has under {tag} holds no signatures")]
    Existing {
        /// The tag.
        tag: String,
        /// Why.
        #[source]
        cause: JsonError,
    },
}

/// Reads a private key.
pub fn private_key(path: &Path, padding: &str) -> Result<PrivateKey, SignError> {
    let pem = bounded::read_text(path, PEM_CHARS_MAX as u64)?;
    let padding = match padding {
        "pkcs1v15" => Padding::Pkcs1v15,
        _ => Padding::Pss,
    };
    let password = std::env::var(PASSWORD).ok();
    PrivateKey::from_pem(&pem, password.as_deref(), padding).map_err(|cause| match cause {
        PrivateKeyError::PasswordMissing => SignError::Password {
            path: path.to_owned(),
        },
        cause => SignError::Key {
            path: path.to_owned(),
            cause,
        },
    })
}

/// An image in its registry, resolved once.
pub struct Remote<'a> {
    client: &'a Client,
    credentials: Option<String>,
    /// Its repository.
    pub repository: Repository,
    /// The manifest or index that the name leads to.
    pub signed: Signed,
}

impl<'a> Remote<'a> {
    /// Asks the registry, by way of the daemon.
    pub async fn find(client: &'a Client, image: &str, authfile: Option<&Path>) -> Result<Self, Failure> {
        let credentials = Credentials::header_for(authfile, image)?;
        let manifest = manifest(client, image, credentials.clone()).await?;
        let Descriptor {
            media_type,
            digest,
            size,
        } = manifest.descriptor;
        let signed = Signed {
            media_type,
            digest: Digest::parse(&digest).map_err(SignError::from)?,
            bytes: u64::try_from(size).unwrap_or(0),
        };
        Ok(Self {
            client,
            credentials,
            repository: Repository::parse(&manifest.repository).map_err(SignError::from)?,
            signed,
        })
    }

    /// Sends what was made.
    pub async fn attach(&self, tag: &str, artifact: &Artifact) -> Result<(), Failure> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let body = Attach {
            tag: tag.to_owned(),
            blobs: artifact.blobs.iter().map(|blob| text(&blob.bytes)).collect(),
            manifest: text(&artifact.manifest),
        };
        let name = format!("{}@{}", self.repository, self.signed.digest);
        let target = Target::new("/registry/attach")
            .query("name", &name)
            .credentials(self.credentials.clone());
        let body = serde_json::to_value(&body).map_err(ClientError::Encode)?;
        self.client.post(target, Some(&body)).await?;
        Ok(())
    }

    /// The manifest of the classic signatures that are there.
    async fn classic(&self) -> Result<Option<String>, Failure> {
        let name = format!("{}:{}", self.repository, signature_tag(&self.signed.digest));
        match manifest(self.client, &name, self.credentials.clone()).await {
            Ok(manifest) => Ok(Some(manifest.document)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

async fn manifest(client: &Client, name: &str, credentials: Option<String>) -> Result<Manifest, ClientError> {
    let target = Target::new("/registry/manifest")
        .query("name", name)
        .credentials(credentials);
    let answer: Value = client.get(target).await?;
    serde_json::from_value(answer).map_err(|cause| ClientError::Json {
        request: String::from("GET /registry/manifest"),
        cause,
    })
}

/// Signs what the name leads to now.
pub async fn run(arguments: &Arguments, client: &Client) -> Result<u8, Failure> {
    let key = private_key(&arguments.key, &arguments.padding)?;
    let version = arguments.release.as_deref().map(Version::parse).transpose();
    let version = version.map_err(SignError::from)?;
    let remote = Remote::find(client, &arguments.image, arguments.authfile.as_deref()).await?;
    let digest = &remote.signed.digest;
    let notes: BTreeMap<String, String> = arguments.annotations.iter().cloned().collect();
    if let Some(version) = version {
        let name = arguments.release_name.clone();
        let release = Release {
            name: name.unwrap_or_else(|| remote.repository.to_string()),
            version,
            digest: digest.clone(),
        };
        let bundle = sign_release(&key, &release).map_err(SignError::from)?;
        remote
            .attach("", &bundle_artifact(&bundle, &remote.signed))
            .await?;
        output::line(&format!(
            "{}@{digest}: {} {}",
            remote.repository, release.name, release.version
        ))?;
        return Ok(0);
    }
    if arguments.form != "bundle" {
        let layer = sign_classic(&key, &remote.repository, digest, &notes).map_err(SignError::from)?;
        let tag = signature_tag(digest);
        let existing = remote.classic().await?;
        let artifact =
            classic_artifact(existing.as_deref().map(str::as_bytes), &[layer]).map_err(|cause| {
                SignError::Existing {
                    tag: tag.clone(),
                    cause,
                }
            })?;
        remote.attach(&tag, &artifact).await?;
    }
    if arguments.form != "classic" {
        let bundle = sign_bundle(&key, digest, &notes).map_err(SignError::from)?;
        remote
            .attach("", &bundle_artifact(&bundle, &remote.signed))
            .await?;
    }
    output::line(&format!("{}@{digest}", remote.repository))?;
    Ok(0)
}
