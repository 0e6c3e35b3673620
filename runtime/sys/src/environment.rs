//! The process's own environment variables.

/// Takes a variable out of the environment. Refused while the process has more than one thread, because another might be reading it.
#[allow(clippy::disallowed_methods)] // The race that the ban is about is excluded by the count of threads.
pub fn remove(name: &str) -> std::io::Result<()> {
    if std::env::var_os(name).is_none() {
        return Ok(());
    }
    if crate::process::thread_count() != Some(1) {
        return Err(std::io::Error::other("the process has more than one thread"));
    }
    // SAFETY: there is no other thread, as was just counted, and this one reads no environment meanwhile.
    unsafe { std::env::remove_var(name) };
    Ok(())
}
