//! The lines of mountinfo (proc_pid_mountinfo(5)), with their escapes undone.
//!
//! The name of a mount point may hold any byte, so no line has to be UTF-8.
//! Not for: making or changing mounts (`mount`).

use super::path::path_of;
use std::path::PathBuf;

/// A mount, as one line of mountinfo shows it.
#[derive(Debug)]
pub struct Mount {
    /// The directory of the file system that is mounted; `/` for the whole file system.
    pub root: PathBuf,
    /// The mount point.
    pub point: PathBuf,
    /// The type of the file system.
    pub fstype: String,
    /// The options of the file system (its superblock), with commas between them.
    pub options: String,
}

/// Reads one line; `None` if it is no line of mountinfo.
pub fn mount(line: &[u8]) -> Option<Mount> {
    // The kernel escapes spaces in names, so each field is one word. A dash ends the optional fields.
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let mut device = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let (fstype, options) = (text(device.next()?), text(device.nth(1)?));
    Some(Mount { root: unescaped(root), point: unescaped(point), fstype, options })
}

/// Undoes the kernel's octal escapes of space, tab, line break and backslash (`\040`).
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..b'8').contains(digit)));
        rest = match digits {
            Some(digits) if *first == b'\\' => {
                bytes.push(digits.iter().fold(0u8, |number, digit| (number << 3) | (digit - b'0')));
                after.get(3..).unwrap_or_default()
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    path_of(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_line_is_read_whatever_the_names_are() {
        let line = b"36 31 0:33 /a\\134b /x\xff\\040- rw,relatime shared:1 master:2 - ext4 /dev/a rw,quota";
        let found = mount(line).unwrap();
        assert_eq!(found.root.as_os_str().as_bytes(), b"/a\\b");
        assert_eq!(found.point.as_os_str().as_bytes(), b"/x\xff -");
        assert_eq!((found.fstype.as_str(), found.options.as_str()), ("ext4", "rw,quota"));
        for line in [&b""[..], b"36 31 0:33 / /x rw", b"36 31 0:33 / /x rw - ext4"] {
            assert!(mount(line).is_none(), "{line:?}");
        }
    }
}
