//! The directory of one container: its record, its essentials, its seccomp filter, and the gate at which init waits.
//!
//! Not for: what a record holds (`record`), and the ids of directories (`ids`).

use super::essentials::Kept;
use super::record::Written;
use super::{Error, Essentials, Phase, Record, Root, Run, Source, Status, boot_id, trust};
use crate::parts::seccomp::Filter;
use crate::sys::{self, Called};
use crate::wire::{FIFO, Gate, RESULT};
use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The files that a container's directory may hold.
const OWN_FILES: [&str; 8] = [
    RECORD,
    ESSENTIALS,
    FILTER,
    FIFO,
    RESULT,
    // The directory of the notify socket.
    "notify",
    "state.json.tmp",
    "essentials.json.tmp",
];
pub(super) const FILTER: &str = "seccomp.bpf";
pub(super) const RECORD: &str = "state.json";
pub(super) const ESSENTIALS: &str = "essentials.json";
/// The largest record or filter. A longer one is neither written nor read.
const RECORD_LIMIT: usize = 16 << 20;
/// Room for the growth of a record after `create` has begun: init's number, its namespaces, other limits.
const ROOM_TO_GROW: usize = 64 << 10;
/// The largest essentials. Only the path of the cgroup makes them long.
const ESSENTIALS_LIMIT: usize = 64 << 10;

/// The directory of one container.
#[derive(Debug)]
pub struct ContainerDir {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
    pub(super) root: Root,
    /// The essentials as last written by us. Most changes of the record do not change them, and need no write.
    essentials: RefCell<Vec<u8>>,
}

impl ContainerDir {
    pub(super) fn new(root: Root, path: PathBuf, fd: OwnedFd) -> Self {
        Self { path, fd, root, essentials: RefCell::default() }
    }

    /// Writes the first record. The directory has no id yet, so no other process looks at it.
    pub(super) fn begin(&self, record: &Record) -> Result<()> {
        let text = self.text_of(record, RECORD_LIMIT - ROOM_TO_GROW)?;
        self.commit_essentials(record)?;
        self.write(RECORD, &text)
    }

    /// Returns true if it holds files of orlop, and no other files.
    pub(super) fn holds_only_ours(&self) -> Result<bool> {
        let mut found = false;
        for entry in Dir::read_from(&self.fd).called("getdents", || format!("{:?}", self.path))? {
            let entry = entry.called("getdents", || format!("{:?}", self.path))?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name if OWN_FILES.iter().any(|own| own.as_bytes() == name) => found = true,
                _ => return Ok(false),
            }
        }
        Ok(found)
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its path, for messages and for the notify directory that is mounted into the container.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of all containers, which it is in.
    pub fn root(&self) -> &Root {
        &self.root
    }

    fn id(&self) -> Option<&str> {
        self.path.file_name()?.to_str()
    }

    /// Replaces the record by one rename: a reader sees the old record or the new one. There is no fsync, because no
    /// container outlives a power cut.
    ///
    /// # Errors
    /// The record is too long, or the file system is full or read-only. The old record is kept then.
    pub fn commit(&self, record: &Record) -> Result<()> {
        let text = self.text_of(record, RECORD_LIMIT)?;
        self.commit_essentials(record)?;
        self.replace(RECORD, &text)
    }

    /// Writes `record` to the temporary file only: finds out whether [`commit`](Self::commit) is possible, before the
    /// caller changes anything.
    ///
    /// # Errors
    /// The record is too long, or the file system is full or read-only.
    pub fn rehearse(&self, record: &Record) -> Result<()> {
        self.write(&temporary(RECORD), &self.text_of(record, RECORD_LIMIT - ROOM_TO_GROW)?)
    }

    fn commit_essentials(&self, record: &Record) -> Result<()> {
        let text = record.essentials().to_json()?;
        ensure!(
            text.len() <= ESSENTIALS_LIMIT,
            "linux.cgroupsPath: with the systemd properties of annotations the state has {} bytes, and the limit is {} KiB",
            text.len(),
            ESSENTIALS_LIMIT >> 10
        );
        if *self.essentials.borrow() == text {
            return Ok(());
        }
        self.replace(ESSENTIALS, &text)?;
        self.essentials.replace(text);
        Ok(())
    }

    fn text_of(&self, record: &Record, limit: usize) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(&Written::of(record))?;
        if text.len() > limit {
            let (part, length) = record.largest_part();
            bail!(
                "{part}: with {length} bytes the container's state has {} bytes, and the limit is {limit}",
                text.len()
            );
        }
        Ok(text)
    }

    fn replace(&self, name: &str, text: &[u8]) -> Result<()> {
        let temporary = temporary(name);
        self.write(&temporary, text)?;
        rustix::fs::renameat(&self.fd, &*temporary, &self.fd, name)
            .called("renameat", || format!("{:?}", self.path.join(name)))?;
        Ok(())
    }

    fn write(&self, name: &str, text: &[u8]) -> Result<()> {
        let shown = || format!("{:?}", self.path.join(name));
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600));
        std::fs::File::from(file.called("openat", shown)?).write_all(text).called("write", shown)?;
        Ok(())
    }

    /// Reads a file after checking that no other user can have written it, and that it has at most `limit` bytes.
    /// `None` if there is no such file.
    fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let shown = || format!("{:?}", self.path.join(name));
        // NONBLOCK: if a fifo is in the place of the file, open must not wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => other.called("openat", shown)?,
        };
        let found = rustix::fs::fstat(&file).called("fstat", shown)?;
        ensure!(found.st_mode & libc::S_IFMT == libc::S_IFREG, "{}: no regular file", shown());
        trust::check(&found, trust::Others::Excluded, shown)?;
        let mut text = Vec::with_capacity(8 << 10);
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        std::fs::File::from(file).take(most).read_to_end(&mut text).called("read", shown)?;
        ensure!(text.len() <= limit, "{}: over {limit} bytes", shown());
        Ok(Some(text))
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; [`trust::Untrusted`]; or the text is damaged, or of another container.
    pub fn load(&self) -> Result<Record> {
        let shown = || format!("{:?}", self.path.join(RECORD));
        let Some(text) = self.read(RECORD, RECORD_LIMIT)? else { return Err(Error::NotFound.into()) };
        let text = std::str::from_utf8(&text).with_context(shown)?;
        let record: Record = serde_json::from_str(text).with_context(shown)?;
        // Later verbs remove what the record names, so it must be the record of this container.
        ensure!(Some(&*record.id) == self.id(), "{}: is of container {:?}", shown(), record.id);
        Ok(record)
    }

    /// Reads what `kill` and `delete` need, from the file of the essentials or else from the record.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is neither file; or neither can be used.
    pub fn load_essentials(&self) -> Result<Source> {
        match self.load_kept() {
            Ok(Some(kept)) => Ok(Source::Kept(kept.into())),
            Ok(None) => self.load().map(|record| Source::Record(record.into())),
            Err(error) => self.load().map(|record| Source::Record(record.into())).map_err(|_| error),
        }
    }

    fn load_kept(&self) -> Result<Option<Kept>> {
        let shown = || format!("{:?}", self.path.join(ESSENTIALS));
        let Some(text) = self.read(ESSENTIALS, ESSENTIALS_LIMIT)? else { return Ok(None) };
        let text = std::str::from_utf8(&text).with_context(shown)?;
        let kept: Kept = serde_json::from_str(text).with_context(shown)?;
        ensure!(Some(kept.get().id) == self.id(), "{}: is of container {:?}", shown(), kept.get().id);
        Ok(Some(kept))
    }

    /// Keeps the compiled filter for `exec`.
    ///
    /// # Errors
    /// The filter is too long, one is kept already, or the file system is full or read-only.
    pub fn store_filter(&self, filter: &Filter) -> Result<()> {
        let shown = || format!("{:?}", self.path.join(FILTER));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, FILTER, flags, Mode::from_raw_mode(0o600));
        let mut file = std::fs::File::from(file.called("openat", shown)?);
        let bytes = filter.encode()?;
        let length = bytes.len();
        ensure!(length <= RECORD_LIMIT, "linux.seccomp: {length} bytes, and the limit is {RECORD_LIMIT}");
        Ok(file.write_all(&bytes).called("write", shown)?)
    }

    /// Reads the filter that [`ContainerDir::store_filter`] kept.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn load_filter(&self) -> Result<Filter> {
        let shown = || format!("{:?}", self.path.join(FILTER));
        let bytes = self.read(FILTER, RECORD_LIMIT)?;
        let bytes = bytes.with_context(|| format!("{}: {}", shown(), sys::strerror(libc::ENOENT)))?;
        Filter::decode(&bytes).with_context(shown)
    }

    /// Makes the two fifos of the gate, and opens them for init: `start` writes to the first, and init to the second.
    pub fn make_gate(&self) -> Result<Gate> {
        let make = |name: &str| {
            let shown = || format!("{:?}", self.path.join(name));
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(&self.fd, name, rustix::fs::FileType::Fifo, mode, 0)
                .called("mknodat", shown)?;
            // O_RDWR: open(2) does not wait for `start`, and init sees no end of file while `start` is not there.
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&self.fd, name, flags, Mode::empty()).called("openat", shown)
        };
        Ok(Gate { go: make(FIFO)?, result: make(RESULT)? })
    }

    /// Makes a directory in it that other users may enter, or opens the existing one.
    ///
    /// # Errors
    /// A file that is no directory has this name.
    pub fn make_directory(&self, name: &str) -> Result<OwnedFd> {
        let shown = || format!("{:?}", self.path.join(name));
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Err(rustix::io::Errno::EXIST) => {}
            other => other.called("mkdirat", shown)?,
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).called("openat", shown)?;
        // mkdir(2) has removed the bits of the umask from the mode.
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o755)).called("fchmod", shown)?;
        Ok(directory)
    }

    /// Removes the fifo that `start` opens first, so that no other `start` finds init waiting. The status stays
    /// `created` until [`remove_gate`](Self::remove_gate).
    pub fn close_gate(&self) -> Result<()> {
        self.unlink(FIFO)
    }

    /// Removes both fifos of the gate. From now on the container is `running`, if init lives.
    pub fn remove_gate(&self) -> Result<()> {
        self.unlink(FIFO)?;
        self.unlink(RESULT)
    }

    fn unlink(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => Ok(other.called("unlinkat", || format!("{:?}", self.path.join(name)))?),
        }
    }

    /// The status that follows from the record, the process and the freezer.
    ///
    /// # Errors
    /// /proc or the freezer cannot be read.
    pub fn status(&self, of: Essentials<'_>) -> Result<Status> {
        if of.phase == Phase::Creating {
            let at_work = of.owner.alive()? && same_boot(of)?;
            return Ok(if at_work { Status::Creating } else { Status::Stopped });
        }
        let Some(run) = of.init.look()? else { return Ok(Status::Stopped) };
        if !same_boot(of)? {
            return Ok(Status::Stopped);
        }
        if of.cgroup.frozen()? {
            return Ok(Status::Paused);
        }
        Ok(match run {
            Run::Forked if self.has_gate() => Status::Created,
            // Without a gate, init is about to execute its program. Or another thread of the program has called
            // execve(2): the kernel marks a new thread as forked, too.
            Run::Forked | Run::Executed => Status::Running,
        })
    }

    fn has_gate(&self) -> bool {
        rustix::fs::accessat(&self.fd, RESULT, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
    }
}

/// The name of a file until it is complete.
fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

/// Returns true if the record is of this boot. Process numbers and start times of another boot mean nothing.
fn same_boot(of: Essentials<'_>) -> Result<bool> {
    Ok(boot_id()? == of.boot_id)
}
