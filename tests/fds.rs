//! File descriptors: the runtime leaks none, and passes those that the caller asks for.

use crate::support::{Bundle, is_root, under_runc};

#[test]
fn the_process_has_the_three_standard_streams_only() {
    Bundle::new().guest("fds").run().prints("0 1 2");
}

#[test]
fn fds_of_the_caller_do_not_leak() {
    // CVE-2024-21626.
    let script = "exec 3</ 4</etc/passwd 9</tmp; exec \"$@\"";
    Bundle::new().through(script).guest("fds").run().prints("0 1 2");
}

#[test]
fn exec_has_the_three_standard_streams_only() {
    Bundle::new().through("exec 3</ 9</tmp; exec \"$@\"").started().exec(&[], "fds").prints("0 1 2");
}

#[test]
fn preserved_fds_are_passed() {
    let script = "exec 3</dev/null 4</dev/null 5</; exec \"$@\"";
    Bundle::new().through(script).option("--preserve-fds 2").guest("fds").run().prints("0 1 2 3 4");
}

#[test]
fn exec_passes_preserved_fds() {
    let container = Bundle::new().through("exec 3</dev/null 4</dev/null; exec \"$@\"").started();
    container.exec(&["--preserve-fds", "1"], "fds").prints("0 1 2 3");
}

#[test]
fn of_the_preserved_fds_those_that_are_open_are_passed() {
    // podman passes a list of descriptors like this: N reaches to the highest number, and podman closes the numbers
    // that are not in its list.
    crate::skip_unless!(!under_runc(), "runc refuses a number that is not open");
    let open = |open: &str| Bundle::new().through(&format!("exec {open}; exec \"$@\"")).guest("fds");
    open("5</dev/null").option("--preserve-fds 3").run().prints("0 1 2 5");
    open("3</dev/null 7</dev/null").option("--preserve-fds 5").run().prints("0 1 2 3 7");
    // The output may also have descriptors that the shell itself has open.
    open("3</dev/null 7</dev/null").option("--preserve-fds 4294967295").run().says("0 1 2 3 7");
    open("4</dev/null").option("--preserve-fds 1").run().prints("0 1 2");
    Bundle::new().option("--preserve-fds 3").guest("fds").run().prints("0 1 2");
    let container = Bundle::new().through("exec 6</dev/null; exec \"$@\"").started();
    container.exec(&["--preserve-fds", "5"], "fds").prints("0 1 2 6");
    container.exec(&["--preserve-fds", "100"], "fds").ok().says("0 1 2 6");
}

#[test]
fn between_preserved_fds_the_container_finds_nothing_of_the_host() {
    crate::skip_unless!(!under_runc(), "runc refuses a number that is not open");
    let script = "exec 9</dev/null; exec \"$@\"";
    let bundle = Bundle::new().through(script).option("--preserve-fds 7").guest("pause");
    let bundle = bundle.global("--log log --debug");
    let container = bundle.container();
    for number in 3..9 {
        let link = std::fs::read_link(format!("/proc/{}/fd/{number}", container.pid())).expect("a link");
        let link = link.display().to_string();
        assert!(link == "anon_inode:[eventfd]" || link.ends_with("/log"), "{number} {link}");
    }
}

#[test]
fn a_listen_fd_that_is_not_open_is_named() {
    crate::skip_unless!(!under_runc(), "runc has other words");
    let script = "exec 3</dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\"";
    Bundle::new().through(script).run().fails_with("LISTEN_FDS=2: descriptor 4 is not open");
}

#[test]
fn listen_fds_are_passed_to_the_process_they_are_meant_for() {
    let script = "exec 3</dev/null 4</dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\"";
    let bundle = Bundle::new().through(script).guest("multi fds -- env LISTEN_FDS -- env LISTEN_PID");
    bundle.run().prints("0 1 2 3 4\n2\n1");
}

#[test]
fn listen_fds_for_another_process_are_not_passed() {
    let script = "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=1; exec \"$@\"";
    Bundle::new().through(script).guest("multi fds -- env LISTEN_FDS").run().prints("0 1 2\nunset");
}

#[test]
fn a_caller_with_closed_standard_streams_gives_no_foreign_file() {
    let bundle =
        Bundle::new().through("exec <&-; exec \"$@\"").guest("multi fds -- readlink /proc/self/fd/0");
    let facts = bundle.run().facts();
    assert!(facts == "0 1 2\n/dev/null" || facts == "1 2\nENOENT", "{facts}");
}

#[test]
fn a_working_directory_behind_an_fd_is_refused() {
    // CVE-2024-21626: the runtime's own descriptors while init sets itself up.
    for number in 3..16 {
        let bundle = Bundle::new().set("/process/cwd", format!("/proc/self/fd/{number}").into());
        bundle.guest("cwd").run().fails_with("cwd");
    }
}

#[test]
fn a_created_container_holds_no_file_of_the_host() {
    // init may wait for long. A process of `exec` that may trace it could follow /proc/1/fd out of the container.
    let script = "exec 3</etc/passwd 4</tmp; exec \"$@\"";
    let container = Bundle::new().through(script).guest("pause").option("--preserve-fds 1").container();
    let directory = format!("/proc/{}/fd", container.pid());
    let mut links = Vec::new();
    for entry in std::fs::read_dir(directory).expect("its descriptors") {
        let entry = entry.expect("an entry");
        let number: u32 = entry.file_name().to_string_lossy().parse().expect("a number");
        let link = std::fs::read_link(entry.path()).expect("a link").display().to_string();
        let own = ["pipe:", "socket:", "anon_inode:"].iter().any(|kind| link.starts_with(kind))
            || link.contains(&format!("/{}/exec.", container.id()))
            || link == "/proc"
            || link == "/";
        // 0, 1 and 2 are the caller's, and so is the one for which it asked.
        if number > 3 && !own {
            links.push(format!("{number} {link}"));
        }
    }
    assert!(links.is_empty(), "{links:?}");
}

#[test]
fn hooks_inherit_the_three_standard_streams_only() {
    let bundle = Bundle::new().through("exec 3</ 9</etc/passwd; exec \"$@\"").option("--preserve-fds 1");
    let list = format!("ls /proc/self/fd > {}/fds", bundle.dir.display());
    let hook =
        serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", list], "env": ["PATH=/usr/bin:/bin"]});
    let container = bundle.set("/hooks/createRuntime", serde_json::json!([hook])).guest("pause").container();
    // ls itself opens the last one, the directory that it reads.
    assert_eq!(container.bundle.wait_for("fds").split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn a_number_of_preserved_fds_that_is_near_the_largest_is_no_other_number() {
    crate::skip_unless!(!under_runc(), "runc refuses a number that is not open");
    for number in ["2147483644", "2147483645", "2147483647", "2147483648"] {
        let bundle = Bundle::new().through("exec 5</dev/null; exec \"$@\"");
        bundle.option(&format!("--preserve-fds {number}")).guest("fds").run().says("5");
    }
}

#[test]
fn files_and_directories_of_the_caller_keep_their_owner_and_pipes_do_not() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    crate::skip_unless!(
        is_root() && !under_runc(),
        "the caller is root; runc gives a detached container its files"
    );
    let container = Bundle::new().started();
    let (file, directory) = (container.bundle.dir.join("callers"), container.bundle.dir.join("callers.d"));
    std::fs::write(&file, "text").expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    std::fs::create_dir(&directory).expect("a directory");
    let user = serde_json::json!({"uid": 1000, "gid": 1000});
    for path in [&file, &directory] {
        let open = || std::fs::File::open(path).expect("it is there");
        Bundle::new().set("/process/user", user.clone()).stdin(open()).guest("ids").run().says("uid=1000");
        let words = ["exec", "--user", "1000:1000", container.id(), "/guest", "ids"];
        let mut command = container.bundle.command(&words);
        let output = command.stdin(open()).output().expect("exec");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found = std::fs::metadata(path).expect("it is there");
        assert_eq!((found.uid(), found.gid()), (0, 0), "{path:?}");
    }
    // Engines pass pipes, and programs reopen /dev/stdout.
    let words = ["exec", "--user", "1000:1000", container.id(), "/guest", "write", "/dev/stdout", "reopened"];
    let output = container.bundle.command(&words).output().expect("exec");
    assert!(String::from_utf8_lossy(&output.stdout).contains("reopened"), "{output:?}");
}
