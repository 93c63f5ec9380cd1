//! A bundle built in one line: a rootfs that holds only the guest, and a config.json that is edited by JSON
//! pointer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::container::Container;
use super::leftovers::{leftovers, leftovers_after, sweep};
use super::runtime::{Output, Running, View, copy_program, eventually, runtime, start, usual_umask};

/// A bundle, its own state root, and how the tests call the runtime for it.
pub struct Bundle {
    pub id: String,
    /// Holds config.json, rootfs, state (the `--root`), and the output of the commands.
    pub dir: PathBuf,
    config: Value,
    raw: Option<Vec<u8>>,
    wrapper: Vec<String>,
    program: String,
    globals: Vec<String>,
    options: Vec<String>,
    variables: Vec<(String, String)>,
    stdin: Option<std::fs::File>,
    _temp: TempDir,
}

impl Bundle {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        usual_umask();
        // All ids have the same length, so no id is the beginning of another: leftovers are found by their id.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("orlop-test-{}-{number:05}", std::process::id());
        let temp = tempfile::Builder::new().prefix(&format!("{id}.")).tempdir().expect("a bundle directory");
        // The root user of a user namespace must be able to pass through this directory.
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o711)).expect("chmod of the bundle");
        let dir = temp.path().to_owned();
        for name in ["rootfs", "state"] {
            fs::create_dir(dir.join(name)).expect("a directory in the bundle");
        }
        let (from, to) = (guest(), dir.join("rootfs/guest"));
        // A hard link shares its mode with the file in the build tree, which may be closed to other users.
        let is_open = from.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o555 == 0o555);
        if !is_open || fs::hard_link(&from, &to).is_err() {
            copy_program(&from, &to);
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("chmod of the guest");
        }
        Self {
            id,
            dir,
            config: base(),
            raw: None,
            wrapper: Vec::new(),
            program: runtime(),
            globals: Vec::new(),
            options: Vec::new(),
            variables: Vec::new(),
            stdin: None,
            _temp: temp,
        }
    }

    // --- config.json ---

    /// Sets the value that the JSON pointer names. Missing objects on the way are made; `-` appends to an array.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self.config;
        for key in pointer.split('/').skip(1) {
            if key == "-" {
                if place.is_null() {
                    *place = json!([]);
                }
                let array = place.as_array_mut().expect("'-' appends to an array");
                array.push(Value::Null);
                place = array.last_mut().expect("it was just appended");
            } else if place.is_array() {
                place = place.get_mut(key.parse::<usize>().expect("an index")).expect("an element");
            } else {
                if place.is_null() {
                    *place = json!({});
                }
                place = place.as_object_mut().expect("an object").entry(key).or_insert(Value::Null);
            }
        }
        *place = value;
        self
    }

    pub fn remove(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = self.config.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        parent.remove(key).expect("it is in the base config");
        self
    }

    pub fn args<const N: usize>(self, args: [&str; N]) -> Self {
        self.set("/process/args", json!(args.as_slice()))
    }

    /// Makes the guest, with these words, the container's process.
    pub fn guest(self, words: &str) -> Self {
        let args: Vec<_> = std::iter::once("/guest").chain(words.split_whitespace()).collect();
        self.set("/process/args", json!(args.as_slice()))
    }

    /// Adds a mount. The base config has seven, so the first added mount is `mounts[7]`.
    pub fn mount(self, destination: &str, mut mount: Value) -> Self {
        mount["destination"] = json!(destination);
        self.set("/mounts/-", mount)
    }

    /// Adds a namespace, or gives the one of this type another path.
    pub fn namespace(mut self, kind: &str, path: Option<&str>) -> Self {
        self = self.without_namespace(kind);
        let entry = match path {
            Some(path) => json!({"type": kind, "path": path}),
            None => json!({"type": kind}),
        };
        self.set("/linux/namespaces/-", entry)
    }

    pub fn without_namespace(mut self, kind: &str) -> Self {
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().expect("the base config has some");
        namespaces.retain(|entry| entry["type"] != kind);
        self
    }

    /// Adds a capability to the bounding, effective and permitted sets.
    pub fn capability(self, name: &str) -> Self {
        ["bounding", "effective", "permitted"]
            .into_iter()
            .fold(self, |bundle, set| bundle.set(&format!("/process/capabilities/{set}/-"), json!(name)))
    }

    /// Adds a user namespace whose root is uid 100000 on the host.
    pub fn user_namespace(self) -> Self {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        let this = self
            .namespace("user", None)
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map);
        std::os::unix::fs::chown(this.dir.join("rootfs"), Some(100_000), Some(100_000)).expect("chown");
        this
    }

    /// Writes exactly these bytes as config.json.
    pub fn raw(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.raw = Some(text.into());
        self
    }

    // --- the rootfs and the bundle ---

    /// A path in the rootfs, as seen from the host.
    pub fn rootfs(&self, path: &str) -> PathBuf {
        self.dir.join("rootfs").join(path.trim_start_matches('/'))
    }

    pub fn file(self, path: &str, text: &str) -> Self {
        let path = self.rootfs(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("the parents of a file");
        fs::write(&path, text).expect("a file in the rootfs");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        self
    }

    pub fn directory(self, path: &str) -> Self {
        fs::create_dir_all(self.rootfs(path)).expect("a directory in the rootfs");
        self
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        let link = self.rootfs(path);
        fs::create_dir_all(link.parent().expect("a parent")).expect("the parents of a symlink");
        std::os::unix::fs::symlink(target, link).expect("a symlink in the rootfs");
        self
    }

    /// A directory of the host, outside the rootfs, with one file in it.
    pub fn host_directory(&self, name: &str) -> String {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).expect("a host directory");
        fs::write(path.join("file"), "from the host").expect("a host file");
        path.display().to_string()
    }

    // --- how the runtime is called ---

    /// Adds options before the command.
    pub fn global(mut self, words: &str) -> Self {
        self.globals.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// Adds options of create and run.
    pub fn option(mut self, words: &str) -> Self {
        self.options.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    pub fn view(self, view: View) -> Self {
        self.wrapped(view.wrapper())
    }

    /// Runs this shell script in front of the runtime; its `"$@"` ends with the runtime's command line.
    pub fn through(self, script: &str) -> Self {
        self.wrapped(["sh", "-c", script, "_"].map(str::to_owned).to_vec())
    }

    /// As `through`, but replaces the wrappers that were added before.
    pub fn through_anew(mut self, script: &str) -> Self {
        self.wrapper.clear();
        self.through(script)
    }

    /// Uses a copy of the runtime in the bundle, where any user may enter: the build tree may be in root's home.
    pub fn copied_runtime(mut self) -> Self {
        let copy = self.dir.join("runtime");
        copy_program(runtime(), &copy);
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("chmod of the runtime");
        self.program = copy.display().to_string();
        self
    }

    fn wrapped(mut self, words: Vec<String>) -> Self {
        self.wrapper.extend(words);
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn stdin(mut self, file: std::fs::File) -> Self {
        self.stdin = Some(file);
        self
    }

    /// The command that runs the runtime with these words in the bundle's directory.
    pub fn command<S: AsRef<str>>(&self, words: &[S]) -> Command {
        let runtime =
            [self.program.clone(), "--root".to_owned(), self.dir.join("state").display().to_string()];
        let mut line = self.wrapper.iter().chain(&runtime).chain(&self.globals);
        let mut command = Command::new(line.next().expect("the runtime at least"));
        command.args(line).args(words.iter().map(AsRef::as_ref)).current_dir(&self.dir);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        match &self.stdin {
            Some(file) => command.stdin(file.try_clone().expect("dup of stdin")),
            None => command.stdin(Stdio::null()),
        };
        command
    }

    /// Calls the runtime and waits until it ends.
    #[track_caller]
    pub fn call<S: AsRef<str>>(&self, words: &[S]) -> Output {
        start(self.command(words), &self.dir).finish()
    }

    pub fn write_config(&self) {
        let text = match &self.raw {
            Some(raw) => raw.clone(),
            None => serde_json::to_vec_pretty(&self.config).expect("a JSON value is JSON"),
        };
        fs::write(self.dir.join("config.json"), text).expect("config.json");
    }

    /// Starts `create` or `run` with this bundle's options and does not wait for it.
    pub fn start(&self, verb: &str) -> Running {
        self.write_config();
        let mut words = vec![verb.to_owned()];
        words.extend(self.options.iter().cloned());
        words.push(self.id.clone());
        start(self.command(&words), &self.dir)
    }

    /// Calls `run` in the foreground.
    #[track_caller]
    pub fn run(self) -> Attempt {
        let output = self.start("run").finish();
        Attempt { bundle: self, output }
    }

    /// Calls `create` where the test expects an error; `container` is for the other case.
    #[track_caller]
    pub fn create(self) -> Attempt {
        let output = self.start("create").finish();
        Attempt { bundle: self, output }
    }

    /// Creates a container, which must succeed.
    #[track_caller]
    pub fn container(self) -> Container {
        let running = self.start("create");
        let output = running.finish_but_keep();
        Container::new(self, output)
    }

    /// Creates and starts a container. If the test gave no args, the container's process waits.
    #[track_caller]
    pub fn started(self) -> Container {
        let waiting = self.config["process"]["args"] == base()["process"]["args"];
        let container = if waiting { self.guest("pause") } else { self }.container();
        container.start();
        container
    }

    /// Fails the test if anything of this container is left on the host.
    #[track_caller]
    pub fn assert_clean(&self) {
        // A killed process ends a moment after the kill. Only what is still there after the wait was forgotten.
        let left = leftovers_after(&self.id, &self.dir, std::time::Duration::from_millis(300));
        assert!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    }

    /// Waits until a file appears in the bundle, and reads it.
    #[track_caller]
    pub fn wait_for(&self, name: &str) -> String {
        eventually(&format!("{name} is there"), || self.dir.join(name).exists());
        fs::read_to_string(self.dir.join(name)).expect("it is there")
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if leftovers(&self.id, &self.dir).is_empty() {
            return;
        }
        let delete = self.command(&["delete", "--force", &self.id]).stderr(Stdio::null()).status();
        drop(delete); // If the runtime cannot delete it, the next line does.
        sweep(&self.id, &self.dir);
    }
}

/// The result of `run` or of a failing `create`. Every assertion also looks for leftovers.
pub struct Attempt {
    pub bundle: Bundle,
    pub output: Output,
}

impl Attempt {
    /// Asserts success, this text on stdout, nothing on stderr, and no leftovers.
    #[track_caller]
    pub fn prints(self, expected: &str) {
        let output = self.output.prints(expected);
        assert_eq!(output.err, "", "stderr of {output}");
        self.bundle.assert_clean();
    }

    #[track_caller]
    pub fn says(self, part: &str) {
        self.output.ok().says(part);
        self.bundle.assert_clean();
    }

    #[track_caller]
    pub fn exits(self, code: i32) {
        self.output.exits(code);
        self.bundle.assert_clean();
    }

    /// Asserts exit status 1, one line that contains this text, and no leftovers.
    #[track_caller]
    pub fn fails_with(self, part: &str) {
        self.fails_with_all(&[part]);
    }

    #[track_caller]
    pub fn fails_with_all(self, parts: &[&str]) {
        self.output.fails(1, parts);
        self.bundle.assert_clean();
    }

    /// What the container printed; asserts success and no leftovers.
    #[track_caller]
    pub fn facts(self) -> String {
        let out = self.output.ok().out;
        self.bundle.assert_clean();
        out.trim_end_matches('\n').to_owned()
    }
}

/// A bind mount, for `Bundle::mount`.
pub fn bind(source: &str, options: &[&str]) -> Value {
    let options: Vec<_> = ["bind"].iter().chain(options).collect();
    json!({"type": "bind", "source": source, "options": options})
}

/// A tmpfs, for `Bundle::mount`.
pub fn tmpfs(options: &[&str]) -> Value {
    json!({"type": "tmpfs", "source": "tmpfs", "options": options})
}

fn guest() -> PathBuf {
    let bin = Path::new(env!("CARGO_BIN_EXE_orlop"));
    let guest = bin.parent().expect("the target directory").join("examples/guest");
    let time = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let parts = fs::read_dir(tests.join("guest")).expect("the guest's parts");
    let parts = parts.map(|entry| entry.expect("an entry").path());
    for source in parts.chain([tests.join("guest.rs")]) {
        // `cargo test` builds the guest; `cargo test --test main` does not.
        assert!(time(&guest) >= time(&source), "the guest is missing or old: cargo build --example guest");
    }
    guest
}

/// The config from which every test starts: what `spec` writes, without a terminal and with a writable root. The crash
/// sweep, the differential tests and the bench start from the same file.
fn base() -> Value {
    serde_json::from_str(include_str!("base.json")).expect("the file is JSON")
}
