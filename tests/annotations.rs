//! Annotations that ask for something: those of crun which podman and others use.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bundle, is_root, under_runc};

fn hook(text: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", text]}])
}

#[test]
fn what_hooks_print_goes_to_the_files_that_annotations_name() {
    crate::skip_unless!(!under_runc(), "runc does not know it");
    let bundle = Bundle::new();
    let (out, err) = (bundle.dir.join("hooks.out"), bundle.dir.join("hooks.err"));
    fs::write(&out, "before\n").expect("a file");
    let bundle = bundle
        .set("/annotations", json!({"run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err}))
        .set("/hooks/createRuntime", hook("echo one; echo two >&2"))
        .set("/hooks/createContainer", hook("echo three"))
        .set("/hooks/startContainer", json!([{"path": "/guest", "args": ["guest", "args", "four"]}]))
        .set("/hooks/poststart", hook("echo five"))
        .set("/hooks/poststop", hook("echo six"));
    bundle.start("run").finish().prints("1");
    // Appended to, also by a hook that sees no file of the host any more.
    assert_eq!(fs::read_to_string(out).expect("the file"), "before\none\nthree\nfour\nfive\nsix\n");
    assert_eq!(fs::read_to_string(err).expect("the file"), "two\n");
    bundle.assert_clean();
}

#[test]
fn a_file_for_hooks_is_absolute_and_can_be_opened() {
    crate::skip_unless!(!under_runc(), "runc does not know it");
    for (file, part) in [("relative", "is not absolute"), ("/does/not/exist", "no such file or directory")] {
        let bundle = Bundle::new().set("/annotations", json!({"run.oci.hooks.stderr": file}));
        let bundle = bundle.set("/hooks/createRuntime", hook("true"));
        bundle.create().fails_with_all(&["run.oci.hooks.stderr", part]);
    }
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
