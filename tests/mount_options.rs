//! Options of mounts beyond flags: what the file systems read themselves.

use std::fs;

use serde_json::json;

use crate::support::{Bundle, is_root, under_runc};

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

#[test]
fn more_options_than_the_kernel_reads_are_refused() {
    // mount(2) cuts them off in silence: layers would be missing.
    let layers = format!("lowerdir={}", ["/a-layer-with-a-long-name"; 200].join(":"));
    let overlay = json!({"type": "overlay", "source": "overlay", "options": [layers]});
    Bundle::new().mount("/o", overlay).run().fails_with_all(&["mounts[7]", "mount(2) takes 4095 at most"]);
}
