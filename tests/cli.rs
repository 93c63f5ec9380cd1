//! The command line: how it is parsed, usage errors, and what the commands without a container print.

use serde_json::Value;

use crate::support::{Bundle, output, under_runc};

#[test]
fn version_begins_as_engines_parse_it() {
    let lines = output(&["--version"]).ok().out;
    // go-runc accepts only "runc version X". docker splits the first line at "version" and looks for "commit:".
    assert!(lines.starts_with("runc version "), "{lines}");
    assert!(lines.lines().any(|line| line.starts_with("commit: ")), "{lines}");
    assert!(lines.lines().any(|line| line.starts_with("spec: ")), "{lines}");
}

#[test]
fn version_has_a_short_flag() {
    assert_eq!(output(&["-v"]).ok().out, output(&["--version"]).ok().out);
}

#[test]
fn no_command_prints_the_help_and_succeeds() {
    let help = output(&[]).ok().out;
    for command in ["create", "start", "exec", "kill", "delete", "state", "list", "features"] {
        assert!(help.contains(command), "{command} is not in the help: {help}");
    }
}

#[test]
fn each_command_has_a_help() {
    for command in ["create", "run", "exec", "ps", "update", "events", "spec"] {
        output(&[command, "--help"]).ok();
        output(&["help", command]).ok();
    }
}

#[test]
fn an_unknown_command_is_exit_status_3() {
    let output = output(&["no-such-command"]);
    assert!(output.err.contains("No help topic for 'no-such-command'"), "{output}");
    output.exits(3);
}

#[test]
fn an_unknown_global_flag_is_an_error() {
    output(&["--no-such-flag", "list"]).exits(1);
}

#[test]
fn a_missing_id_is_a_usage_error() {
    for (command, wanted) in [
        ("state", r#""state" requires exactly 1 argument(s)"#),
        ("start", r#""start" requires exactly 1 argument(s)"#),
        ("delete", r#""delete" requires exactly 1 argument(s)"#),
        ("kill", r#""kill" requires a minimum of 1 argument"#),
        ("exec", r#""exec" requires a minimum of 1 argument"#),
    ] {
        output(&[command]).fails(1, &[wanted]).says("Incorrect Usage.");
    }
}

#[test]
fn long_options_may_have_one_dash() {
    // go-runc really passes `-no-subreaper`.
    Bundle::new().global("-log-format json").option("-no-subreaper -bundle .").run().prints("1");
}

#[test]
fn options_may_have_an_equals_sign() {
    Bundle::new()
        .global("--log-format=text --rootless=false")
        .option("--keep=false --bundle=.")
        .run()
        .prints("1");
}

#[test]
fn a_repeated_option_counts_last() {
    Bundle::new().option("--bundle /does/not/exist --bundle .").run().prints("1");
}

#[test]
fn options_may_follow_the_id() {
    let container = Bundle::new().started();
    container.verb("delete", "", "--force").ok();
    container.bundle.assert_clean();
}

#[test]
fn words_after_the_id_of_exec_are_the_commands_own() {
    let container = Bundle::new().started();
    container.exec(&[], "args --env --cwd -t").prints("--env|--cwd|-t");
}

#[test]
fn root_may_not_be_the_root_directory() {
    output(&["--root", "/", "list"]).fails(1, &["Option --root argument should not be set to /"]);
}

#[test]
fn an_unknown_log_format_is_refused() {
    let output = output(&["--log-format", "xml", "list"]).exits(1);
    assert!(output.err.contains("invalid log-format") || under_runc(), "{output}");
}

#[test]
fn features_is_json_that_says_what_engines_look_for() {
    let output = output(&["features"]).ok();
    assert_eq!(output.err, "", "cri-o reads stdout and stderr as one");
    let features: Value = serde_json::from_str(&output.out).expect("JSON");
    assert_eq!(features["ociVersionMin"], "1.0.0");
    for option in ["rro", "rbind", "nosymfollow", "tmpcopyup"] {
        let known = features["mountOptions"].as_array().expect("mountOptions");
        assert!(known.iter().any(|name| name == option), "{option} is missing");
    }
    assert_eq!(features["linux"]["namespaces"].as_array().expect("namespaces").len(), 8, "with time");
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert_eq!(features["linux"]["cgroup"]["v1"], true);
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert_eq!(features["hooks"].as_array().expect("hooks").len(), 6);
}

#[test]
fn spec_writes_a_config_that_has_no_inheritable_capabilities() {
    let bundle = Bundle::new();
    bundle.call(&["spec"]).ok();
    let text = bundle.wait_for("config.json");
    let spec: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(spec["process"]["args"], serde_json::json!(["sh"]));
    assert_eq!(spec["process"]["terminal"], true);
    assert!(spec["process"]["capabilities"]["inheritable"].is_null(), "{text}");
    assert!(text.contains("\n\t\"process\""), "indented by tabs: {text}");
}

#[test]
fn spec_does_not_overwrite_a_config() {
    let bundle = Bundle::new();
    bundle.call(&["spec"]).ok();
    bundle.call(&["spec"]).fails(1, &["config.json exists. Remove it first"]);
}

#[test]
fn what_spec_writes_can_be_run() {
    let bundle = Bundle::new();
    bundle.call(&["spec"]).ok();
    let spec: Value = serde_json::from_str(&bundle.wait_for("config.json")).expect("JSON");
    let bundle = bundle.set("", spec).set("/process/terminal", false.into());
    bundle.guest("hostname").run().prints("orlop");
}

#[test]
fn spec_rootless_has_a_user_namespace_and_no_network() {
    let bundle = Bundle::new();
    bundle.call(&["spec", "--rootless"]).ok();
    let spec: Value = serde_json::from_str(&bundle.wait_for("config.json")).expect("JSON");
    let kinds = spec["linux"]["namespaces"].to_string();
    assert!(kinds.contains("user") && !kinds.contains("network"), "{kinds}");
    assert_eq!(spec["linux"]["uidMappings"][0]["size"], 1);
}
