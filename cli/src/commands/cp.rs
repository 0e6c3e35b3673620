//! `kakoi cp`: copy files between a container and this machine.
//!
//! Owns what a destination means: a folder takes the source under its own name, anything else is the source's new name. What comes out of a container is
//! unpacked by descriptors, with no link of the archive followed.

use std::ffi::OsStr;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use hyper::Method;
use kakoi_archive::TreeError;
use kakoi_archive::place::{PlaceError, Placing, place};
use kakoi_archive::tarball::Reader;
use kakoi_archive::walk::TreeWriter;
use kakoi_sys::path::open_start;

use super::save;
use crate::client::{Client, ClientError, Target, empty_body, next_chunk};
use crate::failure::{Failure, describe};
use crate::output;
use crate::progress::Upload;

/// The arguments of `kakoi cp`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Keep owners: into a container, files belong to its user where it has one
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link leads to, not the link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Let a file replace a folder, and a folder a file
    #[arg(long)]
    overwrite: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, PATH, or - for an archive on standard input
    #[arg(value_name = "SOURCE", allow_hyphen_values = true)]
    source: String,
    /// CONTAINER:PATH, PATH, or - for an archive on standard output
    #[arg(value_name = "DESTINATION", allow_hyphen_values = true)]
    destination: String,
}

/// Why nothing is copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Both ends are here, or both in containers.
    #[error("one of source and destination must be CONTAINER:PATH, the other a path or -")]
    Ends,
    /// A path of this machine.
    #[error("{what} {}", .path.display())]
    Path {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// There is no folder to copy to.
    #[error("the folder {path} must exist")]
    NoFolder {
        /// Where.
        path: String,
    },
    /// What came cannot be unpacked.
    #[error("unpacking what the container sent")]
    Place(#[from] PlaceError),
    /// The way to the unpacking thread is broken.
    #[error("passing on what the container sent")]
    Pipe(#[source] io::Error),
}

/// Copies.
pub async fn run(arguments: Arguments, client: &Client) -> Result<u8, Failure> {
    let (source, destination) = (&arguments.source, &arguments.destination);
    match (inside(source), inside(destination)) {
        (Some((name, path)), None) => take(&arguments, client, name, path).await?,
        (None, Some((name, path))) => give(&arguments, client, name, path).await?,
        _ => return Err(CopyError::Ends.into()),
    }
    Ok(0)
}

/// A container and a path in it; a path of this machine begins with a slash or a dot, or has no colon.
fn inside(text: &str) -> Option<(&str, &str)> {
    let (name, path) = text.split_once(':')?;
    let is_name = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    is_name.then_some((name, path))
}

fn archive(name: &str, path: &str) -> Target {
    Target::new("/containers")
        .segment(name)
        .segment("archive")
        .query("path", path)
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CopyError {
    let path = path.to_owned();
    move |cause| CopyError::Path { what, path, cause }
}

/// What a path of a container leads to in the end, where it is a link.
async fn link_end(client: &Client, name: &str, path: &str) -> Result<Option<String>, Failure> {
    let answer = client
        .open(Method::HEAD, &archive(name, path), empty_body())
        .await?;
    let header = answer.headers().get("x-docker-container-path-stat");
    let text = header.and_then(|value| decode_base64(value.as_bytes()));
    let stat: serde_json::Value = text
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let target = stat["linkTarget"].as_str().unwrap_or_default();
    Ok((!target.is_empty()).then(|| target.to_owned()))
}

/// RFC 4648, section 4; `None` where it is something else.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len());
    let (mut held, mut bits) = (0u32, 0);
    for byte in text.iter().filter(|byte| **byte != b'=') {
        let digit = DIGITS.iter().position(|known| known == byte)?;
        held = held << 6 | u32::try_from(digit).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// From a container to here.
async fn take(arguments: &Arguments, client: &Client, name: &str, path: &str) -> Result<(), Failure> {
    let followed = match arguments.follow_link {
        true => link_end(client, name, path).await?,
        false => None,
    };
    let source = followed.as_deref().unwrap_or(path);
    let answer = client
        .open(Method::GET, &archive(name, source), empty_body())
        .await?;
    let mut body = answer.into_body();
    if arguments.destination == "-" {
        return save::copy(body, &mut io::stdout().lock(), Path::new("standard output"), true).await;
    }
    let target = Path::new(&arguments.destination);
    let takes_contents = path.ends_with("/.") || path == ".";
    let (folder, named) = if target.is_dir() {
        // What a link leads to comes under the link's name.
        let own = followed.as_ref().and_then(|_| Path::new(path).file_name());
        (target.to_owned(), own.map(OsStr::to_owned))
    } else if takes_contents {
        std::fs::create_dir(target).map_err(at("making", target))?;
        (target.to_owned(), None)
    } else {
        let ends_open = arguments.destination.ends_with('/');
        let (Some(file), false) = (target.file_name(), ends_open) else {
            let path = arguments.destination.clone();
            return Err(CopyError::NoFolder { path }.into());
        };
        let above = target.parent().filter(|above| !above.as_os_str().is_empty());
        (above.unwrap_or(Path::new(".")).to_owned(), Some(file.to_owned()))
    };
    let base = folder.canonicalize().map_err(at("looking for", &folder))?;
    let keeps = (arguments.archive, arguments.overwrite);
    let (reader, mut writer) = io::pipe().map_err(CopyError::Pipe)?;
    let unpacking = std::thread::spawn(move || unpack(reader, &base, named.as_deref(), keeps));
    let request = || "cp".to_owned();
    while let Some(bytes) = next_chunk(&mut body)
        .await
        .map_err(|cause| ClientError::Protocol {
            request: request(),
            cause,
        })?
    {
        // Whoever reads no more says why at its end.
        if writer.write_all(&bytes).is_err() {
            break;
        }
    }
    drop(writer);
    unpacking.join().expect("the unpacking thread does not panic")?;
    Ok(())
}

fn unpack(
    from: PipeReader,
    base: &Path,
    named: Option<&OsStr>,
    (keeps_owners, replaces_kinds): (bool, bool),
) -> Result<(), CopyError> {
    let root =
        open_start(Path::new("/")).map_err(|error| at("opening", Path::new("/"))(error.errno.into()))?;
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let placing = Placing {
        replaces_kinds,
        named: named.map(OsStr::as_bytes),
        owner: (!keeps_owners).then_some(own),
        ids: &|uid, gid| (uid, gid),
    };
    place(root.as_fd(), base, &mut Reader::new(from), &placing)?;
    Ok(())
}

/// From here into a container.
async fn give(arguments: &Arguments, client: &Client, name: &str, path: &str) -> Result<(), Failure> {
    let is_folder = match client
        .open(
            Method::HEAD,
            &archive(name, &format!("{}/.", path.trim_end_matches('/'))),
            empty_body(),
        )
        .await
    {
        Ok(_) => true,
        Err(error) if matches!(error.status(), Some(400 | 404)) => false,
        Err(error) => return Err(error.into()),
    };
    let source = Path::new(&arguments.source);
    let takes_contents = arguments.source.ends_with("/.") || arguments.source == ".";
    let (folder, new_name) = match path.trim_end_matches('/').rsplit_once('/') {
        _ if is_folder || arguments.source == "-" => (path, None),
        // A folder may be made by its name, a file may not.
        _ if path.ends_with('/') && !source.is_dir() => {
            return Err(CopyError::NoFolder {
                path: path.to_owned(),
            }
            .into());
        }
        Some(("", new_name)) => ("/", Some(new_name)),
        Some((above, new_name)) => (above, Some(new_name)),
        None => ("/", Some(path)),
    };
    let target = archive(name, folder)
        .flag("noOverwriteDirNonDir", !arguments.overwrite)
        .flag("copyUIDGID", arguments.archive);
    let upload = match arguments.source.as_str() {
        "-" => Upload::open(None, true)?,
        _ => {
            let source = match arguments.follow_link {
                true => source.canonicalize().map_err(at("looking for", source))?,
                false => source.to_owned(),
            };
            std::fs::symlink_metadata(&source).map_err(at("looking for", &source))?;
            let own = Path::new(&arguments.source)
                .file_name()
                .unwrap_or(OsStr::new("."));
            let archived = match new_name {
                Some(new_name) => new_name.as_bytes().to_vec(),
                None if takes_contents => b".".to_vec(),
                None => own.as_bytes().to_vec(),
            };
            Upload::reading(Packed::begin(source, takes_contents, archived).map_err(CopyError::Pipe)?)
        }
    };
    let (body, _) = upload.into_body();
    client.open(Method::PUT, &target, body).await?;
    if !arguments.quiet && output::is_terminal() {
        output::complain(&format!("copied to {name}:{path}"));
    }
    Ok(())
}

/// A tree as a tar that is read; its end tells whether all of the tree was.
struct Packed {
    pipe: PipeReader,
    packing: Option<JoinHandle<Result<(), TreeError>>>,
}

impl Packed {
    fn begin(source: PathBuf, takes_contents: bool, archived: Vec<u8>) -> io::Result<Self> {
        let (pipe, writer) = io::pipe()?;
        let packing = std::thread::spawn(move || {
            let failed = |error: kakoi_sys::CallError| TreeError::Write(error.errno.into());
            let ids = |uid, gid| (uid, gid);
            let mut tree = TreeWriter::new(io::BufWriter::new(writer), &ids);
            let name = source.file_name().filter(|_| !takes_contents);
            match name {
                Some(name) => {
                    let above = source.parent().filter(|above| !above.as_os_str().is_empty());
                    let above = open_start(above.unwrap_or(Path::new("."))).map_err(failed)?;
                    tree.tree(above.as_fd(), name, &archived)?;
                }
                None => {
                    let folder = open_start(&source).map_err(failed)?;
                    tree.tree(folder.as_fd(), OsStr::new("."), &archived)?;
                }
            }
            tree.finish()?.flush().map_err(TreeError::Write)
        });
        Ok(Self {
            pipe,
            packing: Some(packing),
        })
    }
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.pipe.read(buffer)?;
        if count == 0
            && let Some(packing) = self.packing.take()
        {
            let packed = packing.join().unwrap_or(Ok(()));
            packed.map_err(|error| io::Error::other(describe(&error)))?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{decode_base64, inside};

    #[test]
    fn base64_is_read() {
        for (text, wanted) in [("", ""), ("TQ==", "M"), ("TWE=", "Ma"), ("TWFu", "Man")] {
            assert_eq!(decode_base64(text.as_bytes()).expect(text), wanted.as_bytes());
        }
        assert_eq!(decode_base64(b"a b"), None);
    }

    #[test]
    fn a_container_is_told_from_a_path() {
        assert_eq!(inside("box:/a"), Some(("box", "/a")));
        assert_eq!(inside("box:a:b"), Some(("box", "a:b")));
        for path in ["/a:b", "./a:b", "../a:b", "a/b:c", "a", "-", ":x"] {
            assert_eq!(inside(path), None, "{path}");
        }
    }
}
