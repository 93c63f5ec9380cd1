//! Annotations that ask the runtime for something: crun's, which podman and others use.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Bundle, is_root, under_runc};

fn hook(text: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", text]}])
}

/// Gives the host of this bundle a private /var/log, which is a directory of the bundle. Hooks of root may print
/// there. Returns that directory too.
pub fn with_output(bundle: Bundle) -> (Bundle, PathBuf) {
    if !is_root() {
        let dir = bundle.dir.clone();
        return (bundle, dir);
    }
    let log = bundle.dir.join("log/orlop");
    fs::create_dir_all(&log).expect("a directory");
    fs::set_permissions(&log, fs::Permissions::from_mode(0o755)).expect("chmod");
    let mount = format!("mount --bind '{}' /var/log && exec \"$@\"", bundle.dir.join("log").display());
    let words = ["unshare", "-m", "--propagation", "private", "sh", "-c", &mount, "_"];
    let script = words.map(|word| format!("'{}'", word.replace('\'', "'\\''"))).join(" ");
    (bundle.through(&format!("exec {script} \"$@\"")), log)
}

/// The name by which the runtime knows a file in that directory.
pub fn named(dir: &Path, name: &str) -> PathBuf {
    if is_root() { Path::new("/var/log/orlop").join(name) } else { dir.join(name) }
}

#[test]
fn what_hooks_print_goes_to_the_files_that_annotations_name() {
    crate::skip_unless!(!under_runc(), "runc does not know it");
    let (bundle, dir) = with_output(Bundle::new());
    let (out, err) = (dir.join("hooks.out"), dir.join("hooks.err"));
    fs::write(&out, "before\n").expect("a file");
    let bundle = bundle
        .set("/annotations", json!({
                "run.oci.hooks.stdout": named(&dir, "hooks.out"), "run.oci.hooks.stderr": named(&dir, "hooks.err")
            }))
        .set("/hooks/createRuntime", hook("echo one; echo two >&2"))
        .set("/hooks/createContainer", hook("echo three"))
        .set("/hooks/startContainer", json!([{"path": "/guest", "args": ["guest", "args", "four"]}]))
        .set("/hooks/poststart", hook("echo five"))
        .set("/hooks/poststop", hook("echo six"));
    bundle.start("run").finish().prints("1");
    // Hooks append to it, also a hook that no longer sees any file of the host.
    assert_eq!(fs::read_to_string(out).expect("the file"), "before\none\nthree\nfour\nfive\nsix\n");
    assert_eq!(fs::read_to_string(err).expect("the file"), "two\n");
    bundle.assert_clean();
}

#[test]
fn a_file_for_hooks_is_absolute_and_can_be_opened() {
    crate::skip_unless!(!under_runc(), "runc does not know it");
    let elsewhere = if is_root() { "as root, hooks print only there" } else { "no such file or directory" };
    for (file, part) in [("relative", "is not absolute"), ("/does/not/exist", elsewhere)] {
        let bundle = Bundle::new().set("/annotations", json!({"run.oci.hooks.stderr": file}));
        let bundle = bundle.set("/hooks/createRuntime", hook("true"));
        bundle.create().fails_with_all(&["run.oci.hooks.stderr", part]);
    }
}

#[test]
fn as_root_an_annotation_names_no_file_of_the_host() {
    crate::skip_unless!(is_root() && !under_runc(), "an ordinary user's hooks write what the user may write");
    let prints = |file: &Path, part: &str, prepare: &dyn Fn(&Path)| {
        let (bundle, dir) = with_output(Bundle::new());
        fs::write(bundle.dir.join("victim"), "of the host").expect("a file");
        prepare(&dir);
        let bundle = bundle.set("/hooks/createRuntime", hook("echo printed"));
        let bundle = bundle.set("/annotations", json!({"run.oci.hooks.stdout": file}));
        bundle.start("create").finish().fails(1, &["annotations run.oci.hooks.stdout", part]);
        let victim = fs::read_to_string(bundle.dir.join("victim"));
        assert_eq!(victim.expect("the file"), "of the host");
        bundle.assert_clean();
    };
    let made = format!("/tmp/orlop-test-{}-hooks", std::process::id());
    let only = "as root, hooks print only there";
    prints(Path::new(&made), only, &|_| ());
    assert!(!Path::new(&made).exists());
    for elsewhere in ["/etc/passwd", "/var/log/orlop/../orlop-test", "/var/log/orlop/a/b", "/var/log/orlop"] {
        prints(Path::new(elsewhere), only, &|_| ());
    }
    let inside = Path::new("/var/log/orlop/file");
    prints(inside, "chmod go-w", &|dir| {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).expect("chmod");
    });
    prints(inside, only, &|dir| fs::remove_dir(dir).expect("rmdir"));
    prints(inside, "symbolic link", &|dir| {
        std::os::unix::fs::symlink("../../victim", dir.join("file")).expect("a link");
    });
}

#[test]
fn the_callers_groups_are_kept_on_demand() {
    crate::skip_unless!(is_root() && !under_runc(), "other groups need root, and another runtime than runc");
    let with = |kept: &str| {
        let bundle = Bundle::new().through("exec setpriv --groups 7777,8888 \"$@\"");
        bundle.set("/annotations", json!({"run.oci.keep_original_groups": kept})).guest("ids").run().facts()
    };
    assert_eq!(with("1"), "uid=0 gid=0 groups=7777,8888 umask=0022");
    assert_eq!(with("0"), "uid=0 gid=0 groups= umask=0022");
}

#[test]
fn the_callers_groups_win_over_those_of_the_configuration() {
    // Docker gives additionalGids to every container.
    crate::skip_unless!(is_root() && !under_runc(), "other groups need root, and another runtime than runc");
    let bundle = Bundle::new().through("exec setpriv --groups 7777,8888 \"$@\"").global("--debug --log log");
    let bundle = bundle.set("/annotations", json!({"run.oci.keep_original_groups": "1"}));
    let bundle = bundle.set("/process/user/additionalGids", json!([0, 10])).guest("ids");
    let attempt = bundle.run();
    let log = fs::read_to_string(attempt.bundle.dir.join("log")).expect("the log");
    assert!(log.contains("additionalGids") && log.contains("ignoring"), "{log}");
    attempt.prints("uid=0 gid=0 groups=7777,8888 umask=0022");
}
