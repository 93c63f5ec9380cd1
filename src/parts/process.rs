//! `process.args`, `process.env` and `process.cwd`: finding the program, entering its directory and executing it
//! (config.md, "Process").
//!
//! Not for: the identity, the limits and the rights of the process (`user`, `rlimits`, `capabilities`, `seccomp`).

use crate::sys::path::Root;
use crate::sys::{self, Called};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::Serialize;
use std::ffi::{CStr, CString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The program of the container's process.
#[derive(Clone, Debug, Serialize)]
pub struct Program {
    /// The arguments; never empty.
    pub args: Vec<CString>,
    /// Entries `KEY=value`; no key occurs twice.
    pub env: Vec<CString>,
    /// The working directory; an absolute path.
    pub cwd: PathBuf,
    /// The configuration has no HOME, so init looks it up in the container's /etc/passwd.
    wants_home: bool,
}

/// Decides the program.
///
/// # Errors
/// There are no arguments, cwd is empty or relative, an environment entry is not `KEY=value`, or there is a NUL byte.
pub fn plan(process: &crate::spec::Process) -> Result<Program> {
    let args = process.args.as_deref().unwrap_or_default();
    ensure!(!args.is_empty(), "process.args: args must not be empty");
    let cwd = &process.cwd;
    ensure!(!cwd.as_os_str().is_empty(), "process.cwd: Cwd property must not be empty");
    ensure!(cwd.is_absolute(), "process.cwd: Cwd must be an absolute path");
    ensure!(!cwd.to_string_lossy().contains('\0'), "process.cwd: a NUL byte");
    let args = strings("process.args", args.iter().map(String::as_str))?;
    let mut env = environment(process.env.as_deref().unwrap_or_default())?;
    // As in runc, an empty HOME counts as no HOME.
    env.retain(|entry| entry.to_bytes() != b"HOME=");
    let wants_home = !env.iter().any(|entry| entry.to_bytes().starts_with(b"HOME="));
    Ok(Program { args, env, cwd: cwd.clone(), wants_home })
}

fn strings<'a>(pointer: &str, all: impl Iterator<Item = &'a str>) -> Result<Vec<CString>> {
    all.enumerate()
        .map(|(index, text)| CString::new(text).with_context(|| format!("{pointer}[{index}]: a NUL byte")))
        .collect()
}

/// Checks the environment. If a key occurs twice, its last value takes the place of the first, as in runc.
fn environment(entries: &[String]) -> Result<Vec<CString>> {
    let mut kept: Vec<&str> = Vec::with_capacity(entries.len());
    let mut place = std::collections::HashMap::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let Some((key, _)) = entry.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            bail!("process.env[{index}]: invalid environment variable: {entry:?} has no key=value form");
        };
        match place.entry(key) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(kept.len());
                kept.push(entry);
            }
            std::collections::hash_map::Entry::Occupied(first) => {
                if let Some(place) = kept.get_mut(*first.get()) {
                    *place = entry;
                }
            }
        }
    }
    strings("process.env", kept.into_iter())
}

impl Program {
    /// Returns true if the configuration has no HOME.
    pub fn wants_home(&self) -> bool {
        self.wants_home
    }

    /// The environment as pairs of key and value.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pair = |entry: &CString| {
            let text = entry.to_string_lossy();
            text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
        };
        self.env.iter().filter_map(pair).collect()
    }

    /// Adds or replaces the variable `key`.
    pub fn set_env(&mut self, key: &str, value: &str) {
        let start = format!("{key}=");
        self.env.retain(|entry| !entry.to_bytes().starts_with(start.as_bytes()));
        self.env.extend(CString::new(start + value));
    }

    /// Enters the working directory below `root`. Then checks that it lies inside the container: a leaked descriptor of
    /// a host directory must not become the cwd (CVE-2024-21626).
    ///
    /// # Errors
    /// The cwd is not a directory, may not be entered, or lies outside of the container.
    pub fn enter_cwd(&self, root: &Root) -> Result<()> {
        let enter = || -> Result<(), sys::Error> {
            let directory = root.open(&self.cwd, OFlags::PATH | OFlags::DIRECTORY)?;
            rustix::process::fchdir(&directory).called("fchdir", || format!("{:?}", self.cwd))
        };
        enter()
            .map_err(|error| match error.errno() {
                // We do not follow magic links of /proc (self/fd/3, 1/root). This error names our call, openat2(2).
                libc::ELOOP => error,
                // Engines match the text that runc has for chdir(2).
                errno => sys::Error::new("chdir", format!("{:?}", self.cwd), errno),
            })
            .with_context(|| format!("chdir to cwd ({:?}) set in config.json failed", self.cwd))?;
        verify_cwd()
    }

    /// Makes the working directory if it is missing, as runc does. Init calls this while it is still root in the
    /// container. If this fails, [`Program::enter_cwd`] reports the missing directory.
    pub fn make_cwd(&self, root: &Root) {
        let _ = root.create_dir_all(&self.cwd, 0o755);
    }

    /// Finds the program's file, as runc does: a name with a slash is a path, any other name is searched in the
    /// container's PATH. Without a PATH nothing is found, though execvp(3) would search a default list.
    ///
    /// Init calls this at `create`, so that `create` fails if the program is missing. It has only the rights of the
    /// container's process by then.
    ///
    /// # Errors
    /// The texts are those of runc: engines turn them into exit codes 126 and 127.
    pub fn resolve(&self) -> Result<CString> {
        let name = self.args.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
        if name.contains('/') {
            return match executable(Path::new(&name)) {
                Ok(()) => Ok(CString::new(name)?),
                Err(Refused::Missing(errno)) => {
                    bail!("process.args[0]: exec: {name:?}: stat {name}: {}", sys::strerror(errno))
                }
                Err(Refused::Directory) => bail!("process.args[0]: exec: {name:?}: is a directory"),
                Err(Refused::Permission) => bail!("process.args[0]: exec: {name:?}: permission denied"),
            };
        }
        let path = self.env.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
        let path = path.map_or_else(Default::default, String::from_utf8_lossy);
        let mut denied = false;
        for directory in path.split(':') {
            // An empty or relative entry means the current directory. Go's lookup, and so runc, does not use it.
            if directory.is_empty() || !directory.starts_with('/') {
                continue;
            }
            let candidate = Path::new(directory).join(&name);
            match executable(&candidate) {
                Ok(()) => return Ok(CString::new(candidate.into_os_string().into_vec())?),
                Err(Refused::Permission) => denied = true,
                Err(Refused::Missing(_) | Refused::Directory) => {}
            }
        }
        if denied {
            bail!("process.args[0]: exec: {name:?}: permission denied");
        }
        bail!("process.args[0]: exec: {name:?}: executable file not found in $PATH")
    }

    /// Replaces this process by the program. Returns only if that fails.
    pub fn execve(&self, file: &CStr) -> anyhow::Error {
        anyhow::Error::from(sys::spawn::execve(file, &self.args, &self.env)).context("process.args[0]")
    }
}

/// Why a file cannot be executed.
enum Refused {
    Missing(i32),
    Directory,
    Permission,
}

/// Checks that our present rights let us execute `file`.
fn executable(file: &Path) -> Result<(), Refused> {
    // A relative path starts at the working directory. No host descriptor is open any more, and magic links of /proc
    // are not followed. execve(2) does follow them, but reaches only what the process itself could reach.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(CWD, file, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
    let found = opened.and_then(|file| rustix::fs::fstat(&file).map(|stat| (file, stat)));
    let (file, stat) = match found {
        Ok(found) => found,
        Err(Errno::ACCESS) => return Err(Refused::Permission),
        Err(errno) => return Err(Refused::Missing(errno.raw_os_error())),
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Refused::Directory);
    }
    match sys::spawn::may_execute(file.as_fd()) {
        Ok(()) => Ok(()),
        // A seccomp filter around the runtime may refuse faccessat2(2). Then the permission bits decide.
        Err(Errno::PERM | Errno::NOSYS) if stat.st_mode & 0o111 != 0 => Ok(()),
        Err(_) => Err(Refused::Permission),
    }
}

/// Checks that the current directory lies inside our root.
///
/// # Errors
/// getcwd(2) cannot name the directory from our root.
fn verify_cwd() -> Result<()> {
    // For a directory outside of our root the kernel answers "(unreachable)/…", which is not absolute.
    match rustix::process::getcwd(Vec::new()) {
        Ok(cwd) if cwd.to_bytes().starts_with(b"/") => Ok(()),
        Ok(cwd) => bail!(
            "process.cwd: current working directory is outside of container mount namespace root: {cwd:?}"
        ),
        Err(Errno::NOENT) => {
            bail!("process.cwd: current working directory is outside of container mount namespace root")
        }
        Err(errno) => Err(errno).called("getcwd", String::new).context("process.cwd"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_a_variable_wins() {
        let env = environment(&["A=1".into(), "B=2".into(), "A=3".into()]).unwrap();
        assert_eq!(env, [c"A=3".to_owned(), c"B=2".to_owned()]);
    }

    #[test]
    fn an_empty_home_is_none() {
        let program = |env: &str| {
            let process = format!(r#"{{"args":["a"],"cwd":"/","user":{{"uid":0,"gid":0}},"env":[{env}]}}"#);
            plan(&serde_json::from_str(&process).unwrap()).unwrap()
        };
        let empty = program(r#""HOME=/given","HOME=","A=1""#);
        assert!(empty.wants_home());
        assert_eq!(empty.env, [c"A=1".to_owned()]);
        assert!(!program(r#""HOME=","HOME=/given""#).wants_home());
    }

    #[test]
    fn an_entry_without_a_key_names_its_place() {
        let error = environment(&["A=1".into(), "=2".into()]).unwrap_err();
        assert!(error.to_string().starts_with("process.env[1]: "), "{error}");
        environment(&["novalue".into()]).unwrap_err();
    }

    #[test]
    fn a_nul_byte_is_refused_before_anything_is_done() {
        let process =
            serde_json::from_str(r#"{"args":["a","b\u0000c"],"cwd":"/","user":{"uid":0,"gid":0}}"#).unwrap();
        assert!(format!("{:#}", plan(&process).unwrap_err()).starts_with("process.args[1]: a NUL byte"));
    }

    #[test]
    fn a_program_that_is_not_there_is_told_in_the_words_that_engines_match() {
        let program = |name: &str| Program {
            args: vec![CString::new(name).unwrap()],
            env: vec![c"PATH=/usr/bin".to_owned()],
            cwd: "/".into(),
            wants_home: false,
        };
        let text = |name| format!("{:#}", program(name).resolve().unwrap_err());
        assert!(
            text("no-such-program")
                .ends_with("exec: \"no-such-program\": executable file not found in $PATH")
        );
        assert!(text("/no/such").ends_with("exec: \"/no/such\": stat /no/such: no such file or directory"));
        assert!(text("/tmp").ends_with("exec: \"/tmp\": is a directory"));
        assert_eq!(program("env").resolve().unwrap(), c"/usr/bin/env".to_owned());
    }
}
