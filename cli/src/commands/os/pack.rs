//! `kakoi os pack`: the image of a slot becomes an artifact, with the hashes of its blocks, and signed where a key is given.
//!
//! The tar of an OCI layout with the image last, so that whoever reads it from front to back knows what it is before it comes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use kakoi_archive::tarball::{Entry, Kind};
use kakoi_archive::writer::Writer;
use kakoi_trust::sign::{MANIFEST, Target, bundle_artifact, sign_release};
use kakoi_trust::{
    Digest, Hasher, NameError, OS_ARTIFACT, OsConfig, OsManifest, OsPart, Release, Repository,
    SignError as SignFault, Version, VersionError, os_config, os_manifest, read_os_config,
};
use serde_json::{Value, json};

use crate::commands::trust::sign::private_key;
use crate::failure::Failure;
use crate::output;

/// Bytes of a block: the page of the file systems that images are made of, so that a file that moved is found again.
const BLOCK_BYTES: &str = "4096";
/// An index beyond this is read by no device.
const INDEX_BYTES_MAX: u64 = 64 << 20;
const HASH_BYTES: u64 = 32;

/// The end of the help.
const HELP: &str = "\
An image of ext4 or erofs without compression, made with the same options each time, changes little from version to version: a device
fetches only the 4096-byte blocks that its slots do not hold. Compressed images (squashfs) change whole.

Example:
  kakoi os pack rootfs.ext4 --version 1.4.0 --board gw3 --key vendor.key --name registry.example.com/acme/os -o os-1.4.0.oci.tar
  kakoi os push os-1.4.0.oci.tar registry.example.com/acme/os:1.4.0";

/// The arguments of `kakoi os pack`.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// Its version: one to four numbers, as in 1.4.0
    #[arg(long = "version", value_name = "VERSION")]
    version: String,
    /// The board that it was made for, as host.yaml of the devices names it
    #[arg(long, value_name = "BOARD")]
    board: String,
    /// Another board that it runs on; may be given again
    #[arg(long = "compatible", value_name = "BOARD")]
    compatible: Vec<String>,
    /// Bytes of a block: a power of two from 4096 to 1048576
    #[arg(long, value_name = "BYTES", default_value = BLOCK_BYTES)]
    block_size: u64,
    /// Sign it with this private key, as a release of NAME: PKCS#8 in PEM, or cosign's, whose password stands in COSIGN_PASSWORD
    #[arg(long, value_name = "FILE", requires = "name")]
    key: Option<PathBuf>,
    /// What an RSA key signs with: pss, or pkcs1v15 as cosign does
    #[arg(long, value_name = "PADDING", default_value = "pss", value_parser = ["pss", "pkcs1v15"])]
    padding: String,
    /// The repository that devices take it from
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The file to be written
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The image of a slot, as it is to stand on the device's partition
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
}

/// Why nothing was packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The image.
    #[error("reading {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The artifact.
    #[error("writing {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The version.
    #[error("--version")]
    Version(#[from] VersionError),
    /// The repository.
    #[error("--name")]
    Name(#[from] NameError),
    /// The signature.
    #[error(transparent)]
    Sign(#[from] SignFault),
    /// The blocks.
    #[error("--block-size {0} is not a power of two from 4096 to 1048576")]
    Block(u64),
    /// A board's name.
    #[error("--board and --compatible")]
    Board(#[source] kakoi_trust::OsError),
    /// The image is empty or too large.
    #[error("an image of {bytes} bytes in blocks of {block_bytes} is empty or too large{}", remedy(*.bytes))]
    Size {
        /// Its bytes.
        bytes: u64,
        /// Bytes of a block.
        block_bytes: u64,
    },
    /// It was changed meanwhile.
    #[error("{} changed while it was packed", .0.display())]
    Changed(PathBuf),
}

fn remedy(bytes: u64) -> &'static str {
    match bytes {
        0 => "",
        _ => ": give a larger --block-size",
    }
}

/// What one reading of the image tells.
struct Measured {
    index: Vec<u8>,
    image: OsPart,
}

fn measure(image: &mut impl Read, block_bytes: u64) -> io::Result<Measured> {
    let (mut whole, mut index, mut bytes) = (Hasher::new(), Vec::new(), 0);
    let mut block = Vec::new();
    loop {
        block.clear();
        let count = image.take(block_bytes).read_to_end(&mut block)?;
        if count == 0 {
            break;
        }
        whole.update(&block);
        index.extend_from_slice(&Digest::of(&block).bytes());
        bytes += count as u64;
    }
    Ok(Measured {
        index,
        image: OsPart {
            digest: whole.finish(),
            bytes,
        },
    })
}

fn part(bytes: &[u8]) -> OsPart {
    OsPart {
        digest: Digest::of(bytes),
        bytes: bytes.len() as u64,
    }
}

/// The documents in the order in which they are written, and what index.json says.
struct Layout {
    members: Vec<Vec<u8>>,
    index: Value,
    manifest: Digest,
}

fn layout(arguments: &Arguments, measured: &Measured) -> Result<Layout, Failure> {
    let version = Version::parse(&arguments.version).map_err(PackError::from)?;
    let mut compatible = vec![arguments.board.clone()];
    compatible.extend(arguments.compatible.iter().cloned());
    let config = os_config(&OsConfig {
        version: version.clone(),
        board: arguments.board.clone(),
        compatible,
        bytes: measured.image.bytes,
        block_bytes: arguments.block_size,
        index: Digest::of(&measured.index),
    });
    // What a device would refuse is refused here.
    read_os_config(&config).map_err(PackError::Board)?;
    let manifest = os_manifest(
        &OsManifest {
            config: part(&config),
            index: part(&measured.index),
            image: measured.image.clone(),
        },
        &version,
    );
    let digest = Digest::of(&manifest);
    let bytes = manifest.len() as u64;
    let mut listed = vec![json!({
        "mediaType": MANIFEST,
        "artifactType": OS_ARTIFACT,
        "digest": digest,
        "size": bytes,
        "annotations": {"org.opencontainers.image.ref.name": arguments.version},
    })];
    let mut members = vec![manifest, config];
    let name = arguments.name.as_deref().map(Repository::parse).transpose();
    let name = name.map_err(PackError::from)?;
    if let (Some(key), Some(name)) = (&arguments.key, name) {
        let key = private_key(key, &arguments.padding)?;
        let release = Release {
            name: name.to_string(),
            version,
            digest: digest.clone(),
        };
        let bundle = sign_release(&key, &release).map_err(PackError::from)?;
        let target = Target {
            media_type: MANIFEST.to_owned(),
            digest: digest.clone(),
            bytes,
        };
        let signed = bundle_artifact(&bundle, &target);
        let about = part(&signed.manifest);
        listed.push(json!({"mediaType": MANIFEST, "digest": about.digest, "size": about.bytes}));
        members.extend(signed.blobs.into_iter().map(|blob| blob.bytes));
        members.push(signed.manifest);
    }
    Ok(Layout {
        members,
        index: json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": listed,
        }),
        manifest: digest,
    })
}

fn entry(name: &str, size: u64) -> Entry {
    Entry {
        kind: Kind::File,
        path: name.as_bytes().to_vec(),
        link: Vec::new(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        size,
        xattrs: Vec::new(),
        sparse: None,
    }
}

/// Reads what passes.
struct Passing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Passing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Writes the archive; says the digest of the image as it went in.
fn write(out: &Path, layout: &Layout, measured: &Measured, image: &mut File) -> io::Result<Digest> {
    let file = File::create(out)?;
    let mut tar = Writer::new(BufWriter::new(file));
    let mut put = |name: &str, bytes: &[u8]| -> io::Result<()> {
        tar.entry(&entry(name, bytes.len() as u64))?;
        tar.body(&mut &bytes[..], bytes.len() as u64)?
    };
    put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put("index.json", layout.index.to_string().as_bytes())?;
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    for member in layout.members.iter().chain([&measured.index]) {
        put(&blob(&Digest::of(member)), member)?;
    }
    tar.entry(&entry(&blob(&measured.image.digest), measured.image.bytes))?;
    image.rewind()?;
    let mut passing = Passing {
        inner: image,
        hasher: Hasher::new(),
    };
    tar.body(&mut passing, measured.image.bytes)??;
    let mut buffered = tar.finish()?;
    buffered.flush()?;
    buffered
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    Ok(passing.hasher.finish())
}

/// Packs an image.
pub fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let block_bytes = arguments.block_size;
    if !(4096..=1 << 20).contains(&block_bytes) || !block_bytes.is_power_of_two() {
        return Err(PackError::Block(block_bytes).into());
    }
    let unread = |cause| PackError::Read {
        path: arguments.image.clone(),
        cause,
    };
    let mut image = File::open(&arguments.image).map_err(unread)?;
    let measured = measure(
        &mut io::BufReader::with_capacity(1 << 20, &mut image),
        block_bytes,
    )
    .map_err(unread)?;
    let bytes = measured.image.bytes;
    if bytes == 0 || bytes.div_ceil(block_bytes) * HASH_BYTES > INDEX_BYTES_MAX {
        return Err(PackError::Size { bytes, block_bytes }.into());
    }
    let layout = layout(arguments, &measured)?;
    let unwritten = |cause| PackError::Write {
        path: arguments.output.clone(),
        cause,
    };
    let mut aside = arguments.output.clone().into_os_string();
    aside.push(".part");
    let aside = PathBuf::from(aside);
    let written = write(&aside, &layout, &measured, &mut image);
    let is_whole = matches!(&written, Ok(digest) if *digest == measured.image.digest);
    if !is_whole {
        // What is half written is nobody's.
        fs::remove_file(&aside).ok();
        written.map_err(unwritten)?;
        return Err(PackError::Changed(arguments.image.clone()).into());
    }
    fs::rename(&aside, &arguments.output).map_err(unwritten)?;
    output::line(&layout.manifest.to_string())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_has_its_hash_and_the_last_may_be_short() {
        let image = [vec![1u8; 4096], vec![2; 100]].concat();
        let measured = measure(&mut &image[..], 4096).expect("read");
        assert_eq!(measured.image, part(&image));
        assert_eq!(measured.index.len(), 64);
        assert_eq!(measured.index[..32], Digest::of(&image[..4096]).bytes());
        assert_eq!(measured.index[32..], Digest::of(&image[4096..]).bytes());
        assert_eq!(measure(&mut &b""[..], 4096).expect("read").image.bytes, 0);
    }
}
