//! The black-box tests. Each test builds a bundle, runs the binary on it, and compares what the guest inside saw.
//!
//! `ORLOP=/path/to/another/runtime cargo test --test main` runs them on another runtime. This tells a wrong test
//! from a wrong runtime. Tests of behaviour that only orlop promises then fail, or skip and say so.

// A test that cannot be set up says so at once.
#![allow(clippy::expect_used)]

mod support;

mod annotations;
mod attacks;
mod bad_fields;
mod bad_input;
mod caller;
mod cgroup_choice;
mod cgroup_v2;
mod cgroups;
mod choices;
mod cli;
mod console;
mod crash;
mod delegation;
mod documents;
mod entering;
mod events;
#[cfg(target_arch = "x86_64")]
mod exact_privileges;
mod exec;
mod exec_options;
mod fds;
mod features;
mod hardening;
mod hooks;
mod host_out_of_reach;
mod lifecycle;
mod log;
mod masks;
mod mount_options;
mod mounts;
mod namespaces;
mod network;
mod notify;
mod process;
#[cfg(target_arch = "x86_64")]
mod programs;
mod propagation;
mod rootless;
mod seccomp;
mod security;
mod signals;
mod state_files;
mod stress;
mod structure;
mod systemd;
mod update;
mod waits;

/// Prints the runtime's name with `--nocapture`. If there is no runtime to test, this test fails early and
/// clearly.
#[test]
fn the_runtime_under_test_answers() {
    let output = support::output(&["--version"]);
    eprintln!(
        "runtime under test: {}: {}",
        support::runtime(),
        output.out.lines().next().unwrap_or("silent")
    );
    output.ok();
}
