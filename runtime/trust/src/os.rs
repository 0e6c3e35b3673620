//! What an operating system's image says of itself: the manifest and the configuration of its artifact.
//!
//! ```json
//! {"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.kakoi.os.v1+json",
//!  "config":{"mediaType":"application/vnd.kakoi.os.config.v1+json","digest":"sha256:…","size":300},
//!  "layers":[{"mediaType":"application/vnd.kakoi.os.blocks.v1.sha256","digest":"sha256:…","size":1638400},
//!            {"mediaType":"application/vnd.kakoi.os.image.v1.raw","digest":"sha256:…","size":209715200}]}
//! ```
//! ```json
//! {"version":"1.4.0","board":"gw3","compatible":["gw3","gw2"],"size":209715200,"block_size":4096,"index":"sha256:…"}
//! ```
//!
//! The first layer is the index: the SHA-256 of each block of the second, one after the other. Whoever believes the manifest's digest believes the
//! index, and by it every block, wherever that comes from. Both readers take no document that could be read in two ways, and none with fields that are
//! not known here: what they would ask for would not be done.

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::json::{self, JsonError};
use crate::release::{Version, VersionError};
use crate::sign::MANIFEST;

/// What the artifact is.
pub const OS_ARTIFACT: &str = "application/vnd.kakoi.os.v1+json";
/// The media type of its configuration.
pub const OS_CONFIG: &str = "application/vnd.kakoi.os.config.v1+json";
/// The media type of the index.
pub const OS_INDEX: &str = "application/vnd.kakoi.os.blocks.v1.sha256";
/// The media type of the image.
pub const OS_IMAGE: &str = "application/vnd.kakoi.os.image.v1.raw";
/// The most bytes of a manifest or configuration: some hundred are usual.
pub const OS_DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// Boards that one image is for.
const BOARDS_MAX: usize = 64;
/// The longest name of a board: a device tree's `compatible`.
const BOARD_BYTES_MAX: usize = 128;

/// A blob that the manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsPart {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: u64,
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsManifest {
    /// The configuration.
    pub config: OsPart,
    /// The index.
    pub index: OsPart,
    /// The image of a slot.
    pub image: OsPart,
}

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsConfig {
    /// The version.
    pub version: Version,
    /// The board that it was made for.
    pub board: String,
    /// All boards that it runs on.
    pub compatible: Vec<String>,
    /// Bytes of the image.
    pub bytes: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// The digest of the index.
    pub index: Digest,
}

/// Why a document is not that of an operating system's image.
#[derive(Debug, thiserror::Error)]
pub enum OsError {
    /// It is no acceptable JSON, or lacks something.
    #[error("the {document} of the operating system's image cannot be read")]
    Json {
        /// manifest or configuration.
        document: &'static str,
        /// What is wrong.
        #[source]
        cause: JsonError,
    },
    /// It is something else.
    #[error("it is no operating system's image, but {0}: make one with kakoi os pack")]
    Other(String),
    /// Its version is none.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// Its parts do not belong together, or it asks for what is not known.
    #[error("the operating system's image is not well made: {0}")]
    Malformed(String),
}

fn malformed(why: impl Into<String>) -> OsError {
    OsError::Malformed(why.into())
}

fn known(document: &Value, fields: &[&str]) -> Result<(), OsError> {
    let object = document.as_object().ok_or_else(|| malformed("it is no object"))?;
    match object.keys().find(|key| !fields.contains(&key.as_str())) {
        Some(key) => {
            let shown: String = key.chars().filter(|c| !c.is_control()).take(40).collect();
            Err(malformed(format!("it has a field `{shown}` that is not known")))
        }
        None => Ok(()),
    }
}

fn part(value: &Value, kind: &str) -> Result<OsPart, OsError> {
    if value["mediaType"].as_str() != Some(kind) {
        return Err(malformed(format!(
            "where {kind} is expected there is something else"
        )));
    }
    let digest = value["digest"].as_str().and_then(|text| Digest::parse(text).ok());
    match (digest, value["size"].as_u64()) {
        (Some(digest), Some(bytes)) => Ok(OsPart { digest, bytes }),
        _ => Err(malformed(format!("{kind} without digest or size"))),
    }
}

/// Reads a manifest.
pub fn read_os_manifest(bytes: &[u8]) -> Result<OsManifest, OsError> {
    let read = json::read(bytes, OS_DOCUMENT_BYTES_MAX);
    let document = read.map_err(|cause| OsError::Json {
        document: "manifest",
        cause,
    })?;
    let kind = document["artifactType"].as_str();
    if document["schemaVersion"].as_u64() != Some(2) || kind != Some(OS_ARTIFACT) {
        let kind = kind.or(document["config"]["mediaType"].as_str());
        let kind = kind
            .or(document["mediaType"].as_str())
            .unwrap_or("something else");
        return Err(OsError::Other(
            kind.chars().filter(|c| !c.is_control()).take(80).collect(),
        ));
    }
    let fields = [
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "annotations",
    ];
    known(&document, &fields)?;
    match document["layers"].as_array().map(Vec::as_slice) {
        Some([index, image]) => Ok(OsManifest {
            config: part(&document["config"], OS_CONFIG)?,
            index: part(index, OS_INDEX)?,
            image: part(image, OS_IMAGE)?,
        }),
        _ => Err(malformed("it does not have two layers, index and image")),
    }
}

fn is_board(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.,+".contains(&byte);
    !text.is_empty() && text.len() <= BOARD_BYTES_MAX && text.bytes().all(is_plain)
}

/// Reads a configuration.
pub fn read_os_config(bytes: &[u8]) -> Result<OsConfig, OsError> {
    let wrong = |cause| OsError::Json {
        document: "configuration",
        cause,
    };
    let document = json::read(bytes, OS_DOCUMENT_BYTES_MAX).map_err(wrong)?;
    known(
        &document,
        &["version", "board", "compatible", "size", "block_size", "index"],
    )?;
    let number = |field: &'static str| {
        document[field]
            .as_u64()
            .ok_or_else(|| wrong(JsonError::Field { field }))
    };
    let board = json::text(&document, "board").map_err(wrong)?.to_owned();
    let listed = json::list(&document, "compatible").map_err(wrong)?;
    let compatible: Option<Vec<String>> = listed
        .iter()
        .map(|board| board.as_str().map(str::to_owned))
        .collect();
    let compatible =
        compatible.filter(|boards| boards.len() <= BOARDS_MAX && boards.iter().all(|board| is_board(board)));
    let index = json::text(&document, "index").map_err(wrong)?;
    let config = OsConfig {
        version: Version::parse(json::text(&document, "version").map_err(wrong)?)?,
        compatible: compatible.ok_or_else(|| malformed("its boards are not names of boards"))?,
        bytes: number("size")?,
        block_bytes: number("block_size")?,
        index: Digest::parse(index).map_err(|error| malformed(error.to_string()))?,
        board,
    };
    match config.compatible.contains(&config.board) {
        true => Ok(config),
        false => Err(malformed("its own board is not among those that it runs on")),
    }
}

/// The parts of an image, checked against each other.
///
/// # Errors
/// The manifest names another size or index than the configuration.
pub fn agree(manifest: &OsManifest, config: &OsConfig) -> Result<(), OsError> {
    if manifest.image.bytes != config.bytes {
        return Err(malformed("manifest and configuration name two sizes"));
    }
    if manifest.index.digest != config.index {
        return Err(malformed("manifest and configuration name two indexes"));
    }
    Ok(())
}

/// Writes a configuration. `board` is one of `compatible` in what [`read_os_config`] takes.
pub fn os_config(config: &OsConfig) -> Vec<u8> {
    json!({
        "version": config.version,
        "board": config.board,
        "compatible": config.compatible,
        "size": config.bytes,
        "block_size": config.block_bytes,
        "index": config.index,
    })
    .to_string()
    .into_bytes()
}

/// Writes a manifest, with the version as an annotation for people and registries.
pub fn os_manifest(manifest: &OsManifest, version: &Version) -> Vec<u8> {
    let part =
        |kind: &str, part: &OsPart| json!({"mediaType": kind, "digest": part.digest, "size": part.bytes});
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": OS_ARTIFACT,
        "config": part(OS_CONFIG, &manifest.config),
        "layers": [part(OS_INDEX, &manifest.index), part(OS_IMAGE, &manifest.image)],
        "annotations": {"org.opencontainers.image.version": version},
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> OsConfig {
        OsConfig {
            version: Version::parse("1.4.0").expect("a version"),
            board: "gw3".into(),
            compatible: vec!["gw3".into(), "acme,gw-2".into()],
            bytes: 8192,
            block_bytes: 4096,
            index: Digest::of(b"index"),
        }
    }

    fn manifest() -> OsManifest {
        let part = |bytes: &[u8], size| OsPart {
            digest: Digest::of(bytes),
            bytes: size,
        };
        OsManifest {
            config: part(b"config", 6),
            index: part(b"index", 64),
            image: part(b"image", 8192),
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let (written, made) = (os_config(&config()), manifest());
        assert_eq!(read_os_config(&written).expect("a configuration"), config());
        let document = os_manifest(&made, &config().version);
        assert_eq!(read_os_manifest(&document).expect("a manifest"), made);
        agree(&made, &config()).expect("they belong together");
        let text = String::from_utf8(written).expect("text");
        for (from, to) in [
            ("\"version\":\"1.4.0\"", "\"version\":\"1.4-rc\""),
            ("\"size\":8192", "\"size\":-1"),
            ("\"size\":8192", "\"size\":8192,\"size\":1"),
            ("\"size\":8192", "\"size\":8192,\"script\":\"rm\""),
            ("\"board\":\"gw3\"", "\"board\":\"gw4\""),
            ("\"acme,gw-2\"", "\"a b\""),
            ("\"acme,gw-2\"", "7"),
            ("sha256:", "sha512:"),
        ] {
            let bad = text.replacen(from, to, 1);
            assert_ne!(bad, text, "{from}");
            assert!(read_os_config(bad.as_bytes()).is_err(), "{bad}");
        }
        let text = String::from_utf8(document).expect("text");
        for (from, to) in [
            (OS_ARTIFACT, "application/vnd.acme"),
            (OS_IMAGE, OS_INDEX),
            (OS_CONFIG, "x"),
            ("\"size\":64", "\"size\":\"64\""),
            ("\"annotations\"", "\"subject\""),
            ("\"layers\":[", "\"layers\":[{},"),
        ] {
            let bad = text.replacen(from, to, 1);
            assert_ne!(bad, text, "{from}");
            assert!(read_os_manifest(bad.as_bytes()).is_err(), "{bad}");
        }
        let image =
            br#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json"}}"#;
        let said = read_os_manifest(image).expect_err("a container's").to_string();
        assert!(
            said.contains("oci.image.config") && said.contains("os pack"),
            "{said}"
        );
    }

    #[test]
    fn parts_of_two_images_do_not_agree() {
        let mut other = manifest();
        other.image.bytes = 4096;
        assert!(agree(&other, &config()).is_err());
        let mut other = manifest();
        other.index.digest = Digest::of(b"x");
        assert!(agree(&other, &config()).is_err());
    }
}
