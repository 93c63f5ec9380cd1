//! Ids and paths. An accepted id is one name, and a cleaned path has no `..`. Everything that is opened or made below a
//! root is below it, whatever links are in the way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use orlop::cgroup::Place;
use orlop::parts::paths;
use orlop::state::check_id;
use orlop::sys::path::{Root, clean};
use rustix::fs::OFlags;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

fn is_below(path: &Path) -> bool {
    path.components().all(|one| matches!(one, Component::Normal(_)))
}

fn check_names(text: &str) {
    if check_id(text).is_ok() {
        assert_eq!(Path::new("/run/orlop").join(text).parent(), Some(Path::new("/run/orlop")), "{text:?}");
        assert!(text.len() <= 255 && is_below(Path::new(text)), "{text:?}");
        assert!(!text.starts_with('~') && !text.contains(['\0', '/', '\n']), "{text:?}");
    }
    let (Place::Absolute(place) | Place::Relative(place)) = Place::of(text);
    assert!(is_below(&place), "{text:?} {place:?}");
    let cleaned = clean(Path::new(text));
    assert!(cleaned.strip_prefix("/").is_ok_and(is_below), "{text:?} {cleaned:?}");
    assert_eq!(clean(&cleaned), cleaned);
    let list = [text.to_owned(), text.to_owned()];
    if let Ok(planned) = paths::plan(&list, &list, None, true) {
        assert_eq!(planned.masked.len(), 1, "each once");
        assert!(planned.readonly.iter().all(|path| path.to_bytes().starts_with(b"/")));
    }
}

/// A root with links to everywhere, and a neighbour that must stay empty.
struct World {
    directory: tempfile::TempDir,
    root: Root,
    made: u32,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (inside, outside) = (directory.path().join("root"), directory.path().join("outside"));
        std::fs::create_dir_all(inside.join("a/b/c")).expect("mkdir");
        std::fs::create_dir(&outside).expect("mkdir");
        std::fs::write(inside.join("f"), "").expect("a file");
        let links = [
            ("l", outside.clone()),
            ("u", "../outside".into()),
            ("a/u", "../../../../../../../../../../outside".into()),
            ("a/b/r", "/".into()),
            ("s", ".".into()),
            ("o", "p".into()),
            ("p", "o".into()),
            ("m", "/proc/self/root".into()),
            ("n", "/a/b/new/../../../outside".into()),
            ("d", "../root/../outside/x".into()),
            ("a/b/c/k", "../../../../root/a/u/y".into()),
        ];
        for (name, target) in links {
            symlink(target, inside.join(name)).expect("a link");
        }
        let root = Root::open_host(&inside).expect("a root");
        Self { directory, root, made: 0 }
    }

    fn check(&mut self, path: &Path, create: bool) {
        let inside = self.directory.path().join("root");
        let at = |fd: &dyn AsFd| -> PathBuf {
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).expect("a descriptor")
        };
        let mut found = Vec::new();
        found.extend(self.root.open(path, OFlags::PATH).ok());
        found.extend(self.root.find(path).ok().map(|found| found.fd));
        found.extend(self.root.find_nofollow(path).ok());
        found.extend(self.root.find_directory_nofollow(path).ok());
        if create {
            self.made += 1;
            found.extend(self.root.create_dir_all(path, 0o755).ok());
            found.extend(self.root.create_parent(path, 0o755).ok().map(|(parent, _)| parent));
            found.extend(self.root.create_file(path, 0o644).ok());
        }
        for fd in &found {
            assert!(at(fd).starts_with(&inside), "{path:?} led to {:?}", at(fd));
        }
        let outside = std::fs::read_dir(self.directory.path().join("outside")).expect("outside");
        assert_eq!(outside.count(), 0, "{path:?} made something outside");
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

fuzz_target!(|text: &[u8]| {
    let (create, text) = match text.split_first() {
        Some((first, rest)) => (first % 2 == 1, rest),
        None => (false, text),
    };
    check_names(&String::from_utf8_lossy(text));
    WORLD.with_borrow_mut(|world| {
        world.check(Path::new(OsStr::from_bytes(text)), create);
        // Directories that one input makes stay for the next inputs. They go now and then, so that one input is enough to
        // repeat most crashes.
        if world.made >= 64 {
            *world = World::new();
        }
    });
});
