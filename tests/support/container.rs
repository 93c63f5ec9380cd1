//! A container that outlives the command that made it. It has the later verbs, and looks for leftovers at the end.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::bundle::Bundle;
use super::runtime::{Output, Running, eventually, start};

/// A container between create and delete. Dropping it deletes the container by force; then nothing of it may be
/// left.
pub struct Container {
    pub bundle: Bundle,
    output: PathBuf,
}

impl Container {
    #[track_caller]
    pub fn new(bundle: Bundle, created: (Output, PathBuf)) -> Self {
        created.0.ok();
        Self { bundle, output: created.1 }
    }

    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// Calls a verb with options, the id, and the words after the id: `verb("kill", "--all", "KILL")`.
    #[track_caller]
    pub fn verb(&self, verb: &str, options: &str, after: &str) -> Output {
        let mut words = vec![verb];
        words.extend(options.split_whitespace());
        words.push(self.id());
        words.extend(after.split_whitespace());
        self.bundle.call(&words)
    }

    #[track_caller]
    pub fn start(&self) {
        self.verb("start", "", "").ok();
    }

    #[track_caller]
    pub fn kill(&self, signal: &str) -> Output {
        self.verb("kill", "", signal)
    }

    /// Kills the container and waits until its state is "stopped".
    #[track_caller]
    pub fn stop(&self) {
        self.kill("KILL").ok();
        self.wait_until("stopped");
    }

    #[track_caller]
    pub fn delete(&self) {
        self.verb("delete", "", "").ok();
        self.bundle.assert_clean();
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        let output = self.verb("state", "", "").ok();
        serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {output}"))
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status").to_owned()
    }

    #[track_caller]
    pub fn wait_until(&self, status: &str) {
        eventually(&format!("the container is {status}"), || self.status() == status);
    }

    #[track_caller]
    pub fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().expect("a pid")
    }

    /// Calls `exec` with the guest as its program.
    #[track_caller]
    pub fn exec(&self, options: &[&str], guest: &str) -> Output {
        self.start_exec(options, guest).finish()
    }

    pub fn start_exec(&self, options: &[&str], guest: &str) -> Running {
        let mut words = vec!["exec"];
        words.extend(options);
        words.extend([self.id(), "/guest"]);
        words.extend(guest.split_whitespace());
        start(self.bundle.command(&words), &self.bundle.dir)
    }

    /// What the container's own process has printed so far.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).trim_end().to_owned()
    }

    #[track_caller]
    pub fn prints_in_time(&self, text: &str) {
        eventually(&format!("the container prints {text:?}"), || self.printed().contains(text));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // The bundle removes the leftovers; a second panic would hide the first.
        }
        self.verb("delete", "--force", "").ok();
        self.bundle.assert_clean();
    }
}
