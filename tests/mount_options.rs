//! Options of mounts that are no flags: crun's for symbolic links, id maps, and the file systems' own.

use std::fs;

use serde_json::json;

use crate::support::{Bundle, View, bind, is_root, tmpfs, under_runc};

// --- sources and destinations that are links (crun's options) ---

#[test]
fn copy_symlink_makes_the_link_that_the_source_is() {
    let bundle = Bundle::new();
    let source = bundle.host_directory("host");
    std::os::unix::fs::symlink("/some where/else", bundle.dir.join("link")).expect("a symlink");
    let link = bundle.dir.join("link").display().to_string();
    for user_namespace in [false, true] {
        let bundle = if user_namespace { Bundle::new().user_namespace() } else { Bundle::new() };
        bundle
            .mount("/tmp", tmpfs(&[]))
            .mount("/tmp/a/link", bind(&link, &["copy-symlink", "ro"]))
            .mount("/tmp/a/link", bind(&link, &["copy-symlink"]))
            .mount("/tmp/dir", bind(&source, &["copy-symlink"]))
            .guest("multi readlink /tmp/a/link -- read /tmp/dir/file -- mountinfo /tmp/a/link")
            .run()
            .prints("/some where/else\nfrom the host\nnot a mount point");
    }
    let other = Bundle::new().symlink("link", "/another");
    other.mount("/link", bind(&link, &["copy-symlink"])).run().fails_with_all(&["mounts[7]", "file exists"]);
}

#[test]
fn nofollow_binds_links_themselves() {
    let bundle = Bundle::new();
    let source = bundle.host_directory("host");
    std::os::unix::fs::symlink("/data", bundle.dir.join("link")).expect("a symlink");
    let link = bundle.dir.join("link").display().to_string();
    bundle
        .symlink("there", "/nowhere")
        .mount("/data", bind(&source, &[]))
        .mount("/linked", bind(&link, &["src-nofollow"]))
        .mount("/there", bind(&format!("{source}/file"), &["dest-nofollow"]))
        .guest("multi readlink /linked -- read /linked/file -- read /there")
        .run()
        .prints("/data\nfrom the host\nfrom the host");
}

#[test]
fn options_for_links_that_make_no_sense_are_refused() {
    let both = bind("/etc", &["copy-symlink", "src-nofollow"]);
    Bundle::new()
        .mount("/x", both)
        .run()
        .fails_with("\"copy-symlink\" and \"src-nofollow\" exclude each other");
    let no_bind = tmpfs(&["dest-nofollow"]);
    Bundle::new()
        .mount("/x", no_bind)
        .run()
        .fails_with("mounts[7] /x: \"dest-nofollow\" is for bind mounts only");
}

#[test]
fn empty_id_mappings_are_none() {
    let bundle = Bundle::new();
    let mut mount = bind(&bundle.host_directory("host"), &[]);
    (mount["uidMappings"], mount["gidMappings"]) = (json!([]), json!([]));
    bundle.mount("/data", mount).guest("stat /data/file").run().says(" 0 0");
}

// --- options of the file system ---

#[test]
fn an_escaped_comma_belongs_to_the_path_of_an_overlay_layer() {
    crate::skip_unless!(is_root(), "an overlay of the host's directories");
    let bundle = Bundle::new();
    let (one, two) = (bundle.host_directory("lo,w"), bundle.host_directory("low\"2"));
    fs::write(format!("{one}/a"), "").expect("a file");
    fs::write(format!("{two}/b"), "").expect("a file");
    let layers = format!("lowerdir={}:{two}", one.replace(',', "\\,"));
    let overlay =
        json!({"type": "overlay", "source": "overlay", "options": ["ro", "nosuid", "noatime", layers]});
    let facts =
        bundle.mount("/o", overlay).guest("multi ls /o -- mountinfo /o -- write /o/a no").run().facts();
    let lines: Vec<&str> = facts.lines().collect();
    assert_eq!((lines[0], lines[2]), ("a b file", "EROFS"), "{facts}");
    assert!(lines[1].starts_with("/o overlay ro,nosuid,noatime "), "{facts}");
}

#[test]
fn a_link_of_the_image_does_not_become_the_layer_of_an_overlay() {
    crate::skip_unless!(is_root() && !under_runc(), "an overlay of the host's directories");
    let with = |layer: &str| {
        let bundle = Bundle::new();
        let host = bundle.host_directory("host");
        let bundle = bundle.symlink("link", &host).file("real/file", "from the image");
        let option = format!("lowerdir={}:{host}", bundle.rootfs(layer).display());
        let overlay = json!({"type": "overlay", "source": "overlay", "options": [option]});
        bundle.mount("/o", overlay).guest("read /o/file").run()
    };
    with("real").prints("from the image");
    with("link").fails_with_all(&["mounts[7]", "\"link\"", "a symbolic link of the image"]);
}

/// An overlay at /o with these options, over the root of `bundle`.
fn overlay(bundle: Bundle, options: &[String]) -> Bundle {
    bundle.mount("/o", json!({"type": "overlay", "source": "overlay", "options": options}))
}

#[test]
fn a_layer_in_the_root_is_found_in_every_spelling() {
    crate::skip_unless!(is_root() && !under_runc(), "an overlay of the host's directories");
    for (key, way) in [
        ("lowerdir", "link/rootfs"),
        ("lowerdir", "to-root"),
        ("lowerdir", "co\\:lon/rootfs"),
        ("lowerdir+", "link/rootfs"),
        ("lowerdir+", "rootfs/../rootfs"),
    ] {
        let bundle = Bundle::new();
        let (host, dir) = (bundle.host_directory("host"), bundle.dir.clone());
        for (name, target) in [("link", "."), ("co:lon", "."), ("to-root", "link/rootfs")] {
            std::os::unix::fs::symlink(target, dir.join(name)).expect("a symlink");
        }
        let bundle = bundle.symlink("out", &host).directory("real");
        let layer = |name: &str| format!("{}/{way}/{name}", dir.display());
        let options = match key {
            "lowerdir" => vec![format!("lowerdir={}:{}", layer("out"), layer("real"))],
            _ => vec![format!("lowerdir+={}", layer("out")), format!("lowerdir+={}", layer("real"))],
        };
        overlay(bundle, &options).guest("read /o/file").run().fails_with_all(&["mounts[7]", "in the root: "]);
    }
}

#[test]
fn a_layer_in_the_root_is_opened_once() {
    crate::skip_unless!(is_root() && !under_runc(), "an overlay of the host's directories");
    // By mount(2) and by fsconfig(2).
    for many in [0, 8] {
        let bundle = Bundle::new().file("real/file", "from the image");
        let dir = bundle.dir.display().to_string();
        std::os::unix::fs::symlink(".", bundle.dir.join("link")).expect("a symlink");
        let host = bundle.host_directory("host");
        let more =
            |number| format!(":{}", bundle.host_directory(&format!("a-layer-with-a-long-name-{number}")));
        let more: String = (0..many).map(more).collect();
        let options = [format!("lowerdir={dir}/link/rootfs/real:{host}{more}"), "ro".to_owned()];
        let facts = overlay(bundle, &options).guest("multi read /o/file -- mountinfo /o").run().facts();
        assert!(facts.starts_with("from the image\n/o overlay ro"), "{facts}");
        assert!(facts.contains("lowerdir=/proc/self/fd/") && facts.contains(&host), "{facts}");
    }
}

#[test]
fn a_layer_that_is_exchanged_for_a_link_is_not_the_hosts() {
    crate::skip_unless!(is_root() && !under_runc(), "an overlay of the host's directories");
    // Another container that has the same root races against the runtime.
    let outer = Bundle::new().directory("layer").directory("other");
    let host = outer.host_directory("host");
    let outer = outer.symlink("link", &host);
    let root = outer.rootfs("").display().to_string();
    let root = root.trim_end_matches('/');
    let (layer, link) = (format!("{root}/layer"), format!("{root}/link"));
    let options = [format!("lowerdir={layer}:{root}/other")];
    crate::attacks::exchanging(&layer, &link, || {
        for _ in 0..60 {
            let bundle = overlay(Bundle::new().set("/root/path", json!(root)), &options);
            // It may fail: the test asks only whose file the container finds.
            let attempt = bundle.guest("read /o/file").run();
            assert!(!attempt.output.out.contains("from the host"), "{}", attempt.output);
        }
    });
}

#[test]
fn a_relative_layer_is_refused() {
    for options in [&["lowerdir=one:two"][..], &["lowerdir=/one:two"], &["lowerdir=/one", "upperdir=up"]] {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let attempt = overlay(Bundle::new(), &options).run();
        attempt.fails_with_all(&["mounts[7] /o", "is a relative path; write an absolute one"]);
    }
}

#[test]
fn more_options_than_the_kernel_reads_are_refused() {
    // mount(2) would cut the options off without an error: layers would be missing.
    let layers = format!("lowerdir={}", ["/a-layer-with-a-long-name"; 200].join(":"));
    let overlay = json!({"type": "overlay", "source": "overlay", "options": [layers]});
    Bundle::new().mount("/o", overlay).run().fails_with_all(&["mounts[7]", "mount(2) takes 4095 at most"]);
}

#[test]
fn an_unknown_option_of_a_cgroup2_mount_is_refused_by_its_name() {
    crate::skip_unless!(View::V2.missing().is_none(), "no version 2 view");
    let with = |option: &str| {
        Bundle::new().view(View::V2).set("/mounts/6/options", json!(["ro", "nsdelegate", option])).run()
    };
    with("nodelegate").fails_with_all(&["mounts[6] /sys/fs/cgroup", "\"nodelegate\"", "invalid argument"]);
    with("nsdelegate=1").fails_with_all(&["mounts[6] /sys/fs/cgroup", "\"nsdelegate\"", "invalid argument"]);
    with("memory_recursiveprot").prints("1");
}
