//! Command lines as engines really make them, and what they mean.

use super::super::VERBS;
use super::*;
use crate::cli::values::{ListFormat, MemorySize, RootlessMode};
use crate::log;
use std::time::Duration;

fn line(words: &str) -> Result<Line, Misuse> {
    Line::read(std::iter::once("/usr/bin/orlop").chain(words.split_whitespace()).map(OsString::from))
}

fn asked(words: &str) -> Result<Asked, Misuse> {
    line(words)?.asked()
}

/// The Args of `$variant` that `$words` mean.
macro_rules! args {
    ($variant:ident, $words:expr) => {
        match asked($words) {
            Ok(Asked::Do(Command::$variant(args))) => args,
            other => panic!("{}: {other:?}", $words),
        }
    };
}

fn shown(words: &str) -> String {
    match asked(words) {
        Ok(Asked::Show(page)) => page,
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn the_definition_of_the_whole_command_line_is_sound() {
    pages::command().debug_assert();
}

#[test]
fn containerd_creates() {
    let words = "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup \
                 create --bundle /b --pid-file /b/init.pid --console-socket /tmp/pty.sock --preserve-fds 2 web";
    let global = line(words).unwrap().global;
    assert_eq!(global.root.as_deref(), Some(Path::new("/run/containerd/runc/k8s.io")));
    assert_eq!(global.log.as_deref(), Some(Path::new("/b/log.json")));
    assert_eq!((global.log_format, global.systemd_cgroup), (log::Format::Json, true));
    let args = args!(Create, words);
    assert_eq!(args.id, "web");
    assert_eq!(args.bundle.as_deref(), Some(Path::new("/b")));
    assert_eq!(args.pid_file.as_deref(), Some(Path::new("/b/init.pid")));
    assert_eq!(args.console_socket.as_deref(), Some(Path::new("/tmp/pty.sock")));
    assert_eq!(args.preserve_fds, 2);
    assert!(!args.no_pivot && !args.no_new_keyring);
}

#[test]
fn go_runc_restores_with_one_dash() {
    let args =
        args!(Restore, "restore --detach --image-path /i --work-path /w -no-subreaper --bundle /b web");
    assert!(args.detach && args.no_subreaper);
    assert_eq!(args.image_path.as_deref(), Some(Path::new("/i")));
}

#[test]
fn rootless_comes_with_an_equals_sign() {
    assert_eq!(line("--rootless=true state web").unwrap().global.rootless, RootlessMode::True);
    assert_eq!(line("--rootless=0 state web").unwrap().global.rootless, RootlessMode::False);
    assert_eq!(line("-rootless auto state web").unwrap().global.rootless, RootlessMode::Auto);
    assert!(line("--rootless=maybe state web").is_err());
}

#[test]
fn containerd_executes_and_conmon_does() {
    let args = args!(Exec, "exec --process /tmp/p.json --detach --pid-file /b/1.pid web");
    assert!(args.detach && args.command.is_empty());
    assert_eq!(args.process.as_deref(), Some(Path::new("/tmp/p.json")));
    let args = args!(Exec, "exec --pid-file /p --process /s --detach --console-socket /c web");
    assert_eq!(args.console_socket.as_deref(), Some(Path::new("/c")));
}

#[test]
fn what_follows_the_container_of_exec_is_the_command() {
    let args =
        args!(Exec, "exec -e A=1 --env B=2 -t -u 1000:5 -g 7 -additional-gids 8 web ls --all -t -- -e C=3");
    assert_eq!(args.env, ["A=1", "B=2"]);
    assert_eq!(args.user.as_deref(), Some("1000:5"));
    assert_eq!(args.additional_gids, [7, 8]);
    assert_eq!((args.id.as_str(), args.tty), ("web", true));
    assert_eq!(args.command, ["ls", "--all", "-t", "--", "-e", "C=3"]);
    assert_eq!(args!(Exec, "exec web sh -h").command, ["sh", "-h"]);
    assert_eq!(args!(Exec, "exec -- web -x").command, ["-x"]);
}

#[test]
fn go_runc_passes_ps_options_as_one_word() {
    let words = ["orlop", "ps", "--format", "table", "web", "-o pid,comm"];
    let asked = Line::read(words.map(OsString::from)).unwrap().asked();
    let Ok(Asked::Do(Command::Ps(args))) = asked else { panic!("{asked:?}") };
    assert_eq!((args.format, args.ps_options), (ListFormat::Table, vec!["-o pid,comm".to_owned()]));
    assert_eq!(args!(Ps, "ps --format json web").format, ListFormat::Json);
    assert_eq!(args!(Ps, "ps web -f json").ps_options, ["-f", "json"]);
}

#[test]
fn options_may_follow_the_container() {
    assert!(args!(Delete, "delete web --force").force);
    assert!(args!(Delete, "delete -f web").force);
    let args = args!(Run, "run web -d --bundle /b -pid-file /p");
    assert!(args.detach);
    assert_eq!(args.create.bundle.as_deref(), Some(Path::new("/b")));
    assert_eq!(args.create.id, "web");
}

#[test]
fn kill_takes_all_and_a_signal() {
    let args = args!(Kill, "kill --all web 9");
    assert!(args.all);
    assert_eq!(args.signal.as_deref(), Some("9"));
    assert_eq!(args!(Kill, "kill web").signal, None);
    assert_eq!(args!(Kill, "kill web KILL -a").signal.as_deref(), Some("KILL"));
    assert_eq!(args!(Kill, "kill web -9").signal.as_deref(), Some("-9"));
}

#[test]
fn engines_update_from_stdin_or_a_file() {
    assert_eq!(args!(Update, "update --resources=- web").resources.as_deref(), Some(Path::new("-")));
    assert_eq!(args!(Update, "update --resources - web").resources.as_deref(), Some(Path::new("-")));
    let args = args!(
        Update,
        "update --memory 512m --memory-swap -1 --cpu-quota=-1 --pids-limit -1 --cpu-share= web"
    );
    assert_eq!(args.memory, Some(MemorySize::Bytes(512 << 20)));
    assert_eq!(args.memory_swap, Some(MemorySize::Unlimited));
    assert_eq!((args.cpu_quota, args.pids_limit, args.cpu_share), (Some(-1), Some(-1), None));
}

#[test]
fn a_switch_can_be_turned_off_and_the_last_word_counts() {
    assert!(!args!(Run, "run --detach --detach=false web").detach);
    assert!(args!(Run, "run -d=false -d web").detach);
    assert!(args!(Run, "run --keep=T web").keep);
    assert!(asked("run --keep=maybe web").is_err());
    let args = args!(Run, "run --pid-file /a --pid-file /b web");
    assert_eq!(args.create.pid_file.as_deref(), Some(Path::new("/b")));
    assert_eq!(args!(Run, "run --pid-file /a --pid-file= web").create.pid_file, None);
}

#[test]
fn an_empty_value_is_none() {
    assert_eq!(args!(Create, "create --preserve-fds 3 --preserve-fds= web").preserve_fds, 0);
    assert_eq!(
        line("--log-format json --log-format= state web").unwrap().global.log_format,
        log::Format::Text
    );
    assert_eq!(line("--root= state web").unwrap().global.root.as_deref(), Some(Path::new(".")));
    assert_eq!(args!(Exec, "exec --env= --cwd= web true").env, [""], "but an element of a list");
}

#[test]
fn a_value_may_look_like_an_option() {
    assert_eq!(args!(Exec, "exec --env -x --cap --tty web true").env, ["-x"]);
    assert_eq!(args!(Checkpoint, "checkpoint --status-fd -1 web").status_fd, -1);
}

#[test]
fn lists_keep_every_value() {
    let args = args!(Exec, "exec -c CAP_KILL --cap CAP_CHOWN --cgroup cpu:/a --cgroup /b web true");
    assert_eq!(args.cap, ["CAP_KILL", "CAP_CHOWN"]);
    assert_eq!(args.cgroup, ["cpu:/a", "/b"]);
    let args = args!(Checkpoint, "checkpoint --empty-ns network --empty-ns ipc web");
    assert_eq!(args.empty_ns, ["network", "ipc"]);
}

#[test]
fn intervals_are_go_durations() {
    assert_eq!(args!(Events, "events web").interval, Duration::from_secs(5));
    assert_eq!(args!(Events, "events -interval 100ms web").interval, Duration::from_millis(100));
}

#[test]
fn a_path_need_not_be_utf_8() {
    let odd = OsStr::from_bytes(b"/b\xff");
    let words = ["orlop".into(), "create".into(), "--bundle".into(), odd.to_owned(), "web".into()];
    let asked = Line::read(words).unwrap().asked();
    let Ok(Asked::Do(Command::Create(args))) = asked else { panic!("{asked:?}") };
    assert_eq!(args.bundle.as_deref(), Some(Path::new(odd)));
}

#[test]
fn a_wrong_number_of_arguments_is_said_as_runc_says_it() {
    for (words, message) in [
        ("run", "orlop: \"run\" requires exactly 1 argument(s)"),
        ("run a b", "orlop: \"run\" requires exactly 1 argument(s)"),
        ("list a", "orlop: \"list\" requires exactly 0 argument(s)"),
        ("exec", "orlop: \"exec\" requires a minimum of 1 argument(s)"),
        ("kill", "orlop: \"kill\" requires a minimum of 1 argument(s)"),
        ("kill a b c", "orlop: \"kill\" requires a maximum of 2 argument(s)"),
    ] {
        let misuse = asked(words).unwrap_err();
        assert_eq!((misuse.message.as_str(), misuse.code), (message, 1));
        assert!(misuse.page.starts_with("Incorrect Usage.\n\nNAME:\n   orlop "), "{}", misuse.page);
    }
}

#[test]
fn an_unknown_option_shows_help() {
    let misuse = line("--frobnicate state web").unwrap_err();
    assert_eq!((misuse.message.as_str(), misuse.code), ("flag provided but not defined: -frobnicate", 1));
    assert!(misuse.page.contains("GLOBAL OPTIONS:"));
    let misuse = asked("state -frobnicate web").unwrap_err();
    assert_eq!((misuse.message.as_str(), misuse.code), ("flag provided but not defined: -frobnicate", 1));
    assert!(misuse.page.contains("orlop state - "));
    assert_eq!(line("--root").unwrap_err().message, "flag needs an argument: -root");
    assert!(line("--log-format xml state web").unwrap_err().message.ends_with("invalid log-format: xml"));
    let message = "invalid value \"x\" for flag -preserve-fds: invalid digit found in string";
    assert_eq!(asked("run --preserve-fds x web").unwrap_err().message, message);
}

#[test]
fn an_unknown_command_has_no_help_topic() {
    for words in ["foo", "foo -h", "help foo"] {
        let misuse = asked(words).unwrap_err();
        assert_eq!((misuse.message.as_str(), misuse.code), ("No help topic for 'foo'", 3), "{words}");
    }
}

#[test]
fn help_is_shown_on_request_and_without_any_request() {
    for words in ["", "-h", "--help", "help", "h", "-help"] {
        let page = shown(words);
        assert!(page.starts_with("NAME:\n   orlop - Open Container Initiative runtime\n"), "{words}: {page}");
        assert!(page.contains("checkpoint") && !page.contains("\n  plan "), "{page}");
    }
    for verb in VERBS {
        for words in
            [format!("{} -h", verb.name), format!("{} --help", verb.name), format!("help {}", verb.name)]
        {
            let page = shown(&words);
            assert!(page.starts_with(&format!("NAME:\n   orlop {} - ", verb.name)), "{page}");
        }
    }
}

#[test]
fn the_version_is_readable_for_engines() {
    for words in ["--version", "-v"] {
        let version = shown(words);
        let lines: Vec<_> = version.lines().collect();
        assert!(lines[0].starts_with("runc version "), "{version}");
        assert!(lines[1].starts_with("commit: ") && lines[2] == "spec: 1.3.0", "{version}");
        assert_eq!(version.matches("version").count(), 1, "moby takes the last line with that word");
    }
}
