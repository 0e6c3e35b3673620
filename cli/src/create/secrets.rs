//! `--secret NAME[,OPTION=VALUE...]`, in Podman's words.

use kakoi_api::secret::SecretUse;

/// A `--secret` that says nothing sensible.
#[derive(Debug, thiserror::Error)]
#[error(
    "--secret: {text:?}: {why}; write NAME, NAME,target=/PATH,uid=U,gid=G,mode=0400 or NAME,type=env,target=VARIABLE"
)]
pub struct SecretError {
    text: String,
    why: String,
}

/// Reads all.
pub fn read(texts: &[String]) -> Result<Vec<SecretUse>, SecretError> {
    let one = |text: &String| {
        read_one(text).map_err(|why| SecretError {
            text: text.clone(),
            why,
        })
    };
    texts.iter().map(one).collect()
}

fn read_one(text: &str) -> Result<SecretUse, String> {
    let mut parts = text.split(',');
    let mut used = SecretUse {
        name: parts.next().unwrap_or_default().to_owned(),
        ..SecretUse::default()
    };
    if let Some(name) = used.name.strip_prefix("source=") {
        used.name = name.to_owned();
    }
    if used.name.is_empty() || used.name.contains('=') {
        return Err("it begins with the name of a secret".to_owned());
    }
    let (mut is_variable, mut target) = (false, None);
    for part in parts {
        let (option, value) = part.split_once('=').unwrap_or((part, ""));
        let id = || {
            let id = value.parse::<u32>();
            id.map_err(|_| format!("{option}={value:?} is not an id"))
        };
        match (option, value) {
            ("type", "mount") => is_variable = false,
            ("type", "env") => is_variable = true,
            ("target", value) if !value.is_empty() => target = Some(value.to_owned()),
            ("uid", _) => used.uid = id()?,
            ("gid", _) => used.gid = id()?,
            ("mode", _) => {
                let mode = u32::from_str_radix(value, 8).ok();
                let mode = mode.filter(|mode| (1..=0o777).contains(mode));
                used.mode =
                    mode.ok_or_else(|| format!("mode={value:?} is not one of 0001 to 0777, in octal"))?;
            }
            _ => return Err(format!("there is no option {part:?}")),
        }
    }
    if !is_variable {
        used.target = match target {
            // Podman's: a name alone is one below the usual folder.
            Some(name) if !name.starts_with('/') => format!("/run/secrets/{name}"),
            target => target.unwrap_or_default(),
        };
        return Ok(used);
    }
    if (used.uid, used.gid, used.mode) != (0, 0, 0) {
        return Err("a variable has no owner or mode".to_owned());
    }
    used.env = target.unwrap_or_else(|| used.name.clone());
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_words_are_read() {
        let read = |text: &str| {
            let used = read_one(text).map_err(|why| format!("! {why}"));
            used.map_or_else(
                |why| why,
                |used| {
                    format!(
                        "{} {} {} {}:{} {:o}",
                        used.name, used.env, used.target, used.uid, used.gid, used.mode
                    )
                },
            )
        };
        for (text, expected) in [
            ("pw", "pw   0:0 0"),
            ("source=pw", "pw   0:0 0"),
            ("pw,target=/etc/pw,uid=7,gid=8,mode=0400", "pw  /etc/pw 7:8 400"),
            ("pw,target=other", "pw  /run/secrets/other 0:0 0"),
            ("pw,type=env", "pw pw  0:0 0"),
            ("pw,type=env,target=PW", "pw PW  0:0 0"),
            ("", "! it begins with the name of a secret"),
            ("target=/x", "! it begins with the name of a secret"),
            ("pw,type=file", "! there is no option \"type=file\""),
            ("pw,colour=red", "! there is no option \"colour=red\""),
            ("pw,uid=x", "! uid=\"x\" is not an id"),
            (
                "pw,mode=999",
                "! mode=\"999\" is not one of 0001 to 0777, in octal",
            ),
            (
                "pw,mode=4755",
                "! mode=\"4755\" is not one of 0001 to 0777, in octal",
            ),
            ("pw,type=env,mode=0400", "! a variable has no owner or mode"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
