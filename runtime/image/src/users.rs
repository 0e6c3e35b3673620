//! From `user[:group]` to numbers, against the image's own `/etc/passwd` and `/etc/group`.
//!
//! Owns the grammar of user strings and the reading of both files out of layers. Refuses guesses: what is no name and no plain number is an
//! error, and never user 0 (CVE-2026-30892). Stricter than Docker in four places, each of which lets an image or a typing error turn into
//! root there: digits are always a number, even where an image names an account `1000`; numbers have no sign, no blanks and no leading
//! zeros; a line of passwd whose ids are no numbers does not count instead of meaning 0; neither side of a colon may be empty.
//!
//! The files are untrusted, and with a container's writable layer on top they can change while they are read: see `layered`.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::layered::open_file_in;

/// Most bytes of passwd or group that are read: ten thousand accounts.
pub const ACCOUNTS_BYTES_MAX: u64 = 1 << 20;
/// Most supplementary groups: NGROUPS_MAX is 65536, NFS and people stop at far fewer.
const GROUPS_MAX: usize = 1024;
/// Largest id: Docker's. The last of 32 bits means "unchanged" to the kernel.
const ID_MAX: u32 = i32::MAX as u32;

/// A user as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, in order, the group id itself not among them unless passwd and group say so.
    pub groups: Vec<u32>,
    /// The account's name, where it has one.
    pub name: Option<String>,
    /// The account's home, where it has one that is an absolute path.
    pub home: Option<String>,
}

/// Why a user is not found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Not `user`, `user:group`, or numbers of that form.
    #[error("invalid user {text:?}: expected NAME, UID, NAME:GROUP or UID:GID")]
    Format {
        /// The string, shortened.
        text: String,
    },
    /// A number that is none.
    #[error("uids and gids must be in range 0-{ID_MAX}: {text:?}")]
    Range {
        /// The number, shortened.
        text: String,
    },
    /// No such account.
    #[error("unable to find user {name}: no matching entries in passwd file")]
    NoUser {
        /// The name.
        name: String,
    },
    /// No such group.
    #[error("unable to find group {name}: no matching entries in group file")]
    NoGroup {
        /// The name.
        name: String,
    },
    /// More groups than a process may have.
    #[error("user has more than {GROUPS_MAX} groups")]
    TooManyGroups,
    /// A file larger than anyone's.
    #[error("{} of the image is larger than {ACCOUNTS_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file that cannot be read, or whose path runs in circles.
    #[error("cannot read {} of the image", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Finds a user in layers, **the topmost first**. An empty string means user 0, as an image without `USER` does.
///
/// For a running container its writable layer comes first in `layers`. `more_groups` are names or numbers (`--group-add`).
pub fn resolve_user(layers: &[PathBuf], text: &str, more_groups: &[String]) -> Result<User, UserError> {
    let (user, group) = split(text)?;
    let passwd = read(layers, Path::new("etc/passwd"))?;
    let groups = read(layers, Path::new("etc/group"))?;
    let groups: Vec<Group<'_>> = groups.split(|b| *b == b'\n').filter_map(Group::parse).collect();
    let mut accounts = passwd.split(|b| *b == b'\n').filter_map(Account::parse);
    let (account, uid) = match user {
        Word::Number(uid) => (accounts.find(|account| account.uid == uid), uid),
        Word::Name(name) => {
            let found = accounts.find(|account| account.name == name);
            let account = found.ok_or_else(|| UserError::NoUser {
                name: name.to_owned(),
            })?;
            let uid = account.uid;
            (Some(account), uid)
        }
    };
    let mut resolved = User {
        uid,
        gid: account.as_ref().map_or(0, |account| account.gid),
        groups: Vec::new(),
        name: account.as_ref().map(|account| account.name.to_owned()),
        home: account
            .as_ref()
            .and_then(|account| account.home.map(str::to_owned)),
    };
    let mut more = BTreeSet::new();
    match group {
        Some(group) => resolved.gid = find_group(&groups, group)?,
        None => {
            let name = resolved.name.as_deref();
            more.extend(
                groups
                    .iter()
                    .filter(|group| name.is_some_and(|n| group.has(n)))
                    .map(|group| group.gid),
            );
        }
    }
    for group in more_groups {
        more.insert(find_group(&groups, word(group, text_of(group))?)?);
    }
    if more.len() > GROUPS_MAX {
        return Err(UserError::TooManyGroups);
    }
    resolved.groups = more.into_iter().collect();
    Ok(resolved)
}

/// One side of a user string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'a> {
    Name(&'a str),
    Number(u32),
}

fn split(text: &str) -> Result<(Word<'_>, Option<Word<'_>>), UserError> {
    if text.is_empty() {
        return Ok((Word::Number(0), None));
    }
    match text.split_once(':') {
        None => Ok((word(text, text_of(text))?, None)),
        Some((user, group)) => Ok((word(user, text_of(text))?, Some(word(group, text_of(text))?))),
    }
}

/// A name or a number. Which of the two it is depends on the text alone, never on what a file of the image says.
fn word(text: &str, whole: String) -> Result<Word<'_>, UserError> {
    if text.bytes().next().is_some_and(|b| b.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit()) {
        return match id(text) {
            Some(id) => Ok(Word::Number(id)),
            None => Err(UserError::Range { text: whole }),
        };
    }
    // What looks like a number that someone mistyped, and what no account can be called.
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/' | ',');
    if text.is_empty() || text.starts_with(['-', '+']) || text.contains(bad) || text.len() > 256 {
        return Err(UserError::Format { text: whole });
    }
    Ok(Word::Name(text))
}

fn text_of(text: &str) -> String {
    text.chars().take(100).collect()
}

/// A plain decimal number without leading zeros.
fn id(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain
        .then(|| text.parse().ok())
        .flatten()
        .filter(|id| *id <= ID_MAX)
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: Option<&'a str>,
}

impl<'a> Account<'a> {
    /// `name:password:uid:gid:comment:home:shell`; a line that is not of this form does not count.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let mut fields = line.split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with(['+', '-', '#']))?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields
            .nth(1)
            .filter(|home| home.starts_with('/') && !home.contains('\0'));
        Some(Self { name, uid, gid, home })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    /// `name:password:gid:member,member`
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?;
        let mut fields = line.split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with(['+', '-', '#']))?;
        let gid = id(fields.nth(1)?)?;
        Some(Self {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    }

    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

fn find_group(groups: &[Group<'_>], group: Word<'_>) -> Result<u32, UserError> {
    match group {
        Word::Number(gid) => Ok(gid),
        Word::Name(name) => {
            let found = groups.iter().find(|known| known.name == name);
            found.map(|known| known.gid).ok_or_else(|| UserError::NoGroup {
                name: name.to_owned(),
            })
        }
    }
}

/// Reads a file of the layered root; one that is not there reads as empty.
fn read(layers: &[PathBuf], path: &Path) -> Result<Vec<u8>, UserError> {
    let failed = |source: io::Error| UserError::Read {
        path: path.to_owned(),
        source,
    };
    let Some(file) = open_file_in(layers, path).map_err(failed)? else {
        return Ok(Vec::new());
    };
    let mut bytes = Vec::new();
    file.take(ACCOUNTS_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > ACCOUNTS_BYTES_MAX {
        return Err(UserError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        app:x:1000:1001:An app:/srv/app:/bin/sh\n\
        1234:x:0:0:a trap:/:/bin/sh\n\
        broken:x:zero:0::/:/bin/sh\n\
        minus:x:-1:0::/:/bin/sh\n\
        wrapped:x:4294967296:0::/:/bin/sh\n\
        empty:x:::::\n\
        short:x\n\
        +nis::0:0:::\n";
    const GROUP: &str =
        "root:x:0:\nwheel:x:10:root,app\napps:x:1001:\nvideo:x:44:other,app\n99:x:0:\nbad:x:no:app\n";

    fn image() -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().expect("folder");
        fs::create_dir_all(dir.path().join("base/etc")).expect("folder");
        fs::write(dir.path().join("base/etc/passwd"), PASSWD).expect("file");
        fs::write(dir.path().join("base/etc/group"), GROUP).expect("file");
        let layers = vec![dir.path().join("base")];
        (dir, layers)
    }

    #[test]
    fn users_are_found_as_docker_finds_them() {
        let (_dir, layers) = image();
        for (text, uid, gid, groups, home) in [
            ("", 0, 0, vec![10], Some("/root")),
            ("root", 0, 0, vec![10], Some("/root")),
            ("0", 0, 0, vec![10], Some("/root")),
            ("app", 1000, 1001, vec![10, 44], Some("/srv/app")),
            ("1000", 1000, 1001, vec![10, 44], Some("/srv/app")),
            ("app:wheel", 1000, 10, vec![], Some("/srv/app")),
            ("app:5", 1000, 5, vec![], Some("/srv/app")),
            ("4000", 4000, 0, vec![], None),
            ("4000:4001", 4000, 4001, vec![], None),
            // Digits are numbers, whatever the image calls its accounts.
            ("1234", 1234, 0, vec![], None),
            ("5:99", 5, 99, vec![], None),
        ] {
            let user = resolve_user(&layers, text, &[]).expect(text);
            assert_eq!((user.uid, user.gid, &user.groups), (uid, gid, &groups), "{text}");
            assert_eq!(user.home.as_deref(), home, "{text}");
        }
        let more = resolve_user(&layers, "app", &["root".to_owned(), "7".to_owned()]).expect("groups");
        assert_eq!(more.groups, [0, 7, 10, 44]);
    }

    #[test]
    fn malformed_users_are_never_root_cve_2026_30892() {
        let (_dir, layers) = image();
        for bad in [
            ":",
            "app:",
            ":0",
            ":root",
            "app:root:root",
            "0:0:0",
            " ",
            " 0",
            "0 ",
            "\n0",
            "+0",
            "-0",
            "-1",
            "00",
            "01",
            "0x0",
            "0.0",
            "1e3",
            "4294967295",
            "4294967296",
            "2147483648",
            "18446744073709551616",
            "nobody-here",
            "broken",
            "minus",
            "wrapped",
            "empty",
            "short",
            "+nis",
            "nis",
            "app:nogroup",
            "app:-1",
            "app:bad",
            "app:4294967296",
            "٠",
            "root\0",
            "root/",
            "root,app",
            "#0",
        ] {
            assert!(resolve_user(&layers, bad, &[]).is_err(), "{bad:?}");
        }
        for bad in ["", "nogroup", "-1", "00", "0:0"] {
            assert!(
                resolve_user(&layers, "app", &[bad.to_owned()]).is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let dir = tempfile::tempdir().expect("folder");
        fs::write(dir.path().join("host"), "app:x:0:0::/:\n").expect("file");
        let layer = dir.path().join("layer");
        fs::create_dir_all(layer.join("etc")).expect("folder");
        let layers = [layer.clone()];
        for target in [
            "../../host",
            "/../../host",
            "../etc/../../host",
            "/etc/passwd",
            "passwd",
            ".",
        ] {
            fs::remove_file(layer.join("etc/passwd")).ok();
            symlink(target, layer.join("etc/passwd")).expect("link");
            assert!(resolve_user(&layers, "app", &[]).is_err(), "{target}");
        }
        // Where the link stays inside, it is followed as it would be in there.
        fs::create_dir_all(layer.join("usr/share")).expect("folder");
        fs::write(layer.join("usr/share/accounts"), "app:x:7:8::/:\n").expect("file");
        for target in [
            "/usr/share/accounts",
            "../usr/share/accounts",
            "../../../../usr/share/../share/accounts",
        ] {
            fs::remove_file(layer.join("etc/passwd")).expect("removed");
            symlink(target, layer.join("etc/passwd")).expect("link");
            assert_eq!(
                resolve_user(&layers, "app", &[]).expect(target).uid,
                7,
                "{target}"
            );
        }
        // A pipe would hold us up for ever.
        fs::remove_file(layer.join("etc/passwd")).expect("removed");
        nix::unistd::mkfifo(&layer.join("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        assert!(resolve_user(&layers, "app", &[]).is_err());
        fs::remove_file(layer.join("etc/passwd")).expect("removed");
        fs::write(
            layer.join("etc/passwd"),
            vec![b'x'; ACCOUNTS_BYTES_MAX as usize + 1],
        )
        .expect("file");
        assert!(matches!(
            resolve_user(&layers, "0", &[]),
            Err(UserError::TooLarge { .. })
        ));
    }

    #[test]
    fn the_topmost_layer_that_says_something_counts() {
        if !crate::tests::root("the_topmost_layer_that_says_something_counts") {
            return;
        }
        let (dir, mut layers) = image();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("etc")).expect("folder");
        layers.insert(0, top.clone());
        assert_eq!(resolve_user(&layers, "app", &[]).expect("from below").uid, 1000);
        fs::write(top.join("etc/passwd"), "app:x:77:78::/:\n").expect("file");
        assert_eq!(resolve_user(&layers, "app", &[]).expect("from above").uid, 77);
        fs::remove_file(top.join("etc/passwd")).expect("removed");
        let whiteout = |path: &Path| {
            use nix::sys::stat::{Mode, SFlag, mknod};
            mknod(path, SFlag::S_IFCHR, Mode::empty(), 0).expect("whiteout");
        };
        whiteout(&top.join("etc/passwd"));
        assert!(resolve_user(&layers, "app", &[]).is_err(), "whited out");
        fs::remove_dir_all(top.join("etc")).expect("removed");
        whiteout(&top.join("etc"));
        assert!(resolve_user(&layers, "app", &[]).is_err(), "folder whited out");
        fs::remove_file(top.join("etc")).expect("removed");
        fs::create_dir(top.join("etc")).expect("folder");
        let etc = File::open(top.join("etc")).expect("folder");
        kakoi_sys::xattr::set(etc.as_fd(), c"trusted.overlay.opaque", b"y").expect("opaque");
        assert!(resolve_user(&layers, "app", &[]).is_err(), "folder opaque");
    }
}
