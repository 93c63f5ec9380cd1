//! orlop, a low-level OCI container runtime: parse, dispatch, say what went wrong, exit.

#![deny(unsafe_code)]

use orlop::cli::argv::{Asked, Line, Misuse};
use orlop::cli::global::Global;
use orlop::{commands, log};
use std::io::Write;

fn main() {
    std::process::exit(run());
}

fn run() -> i32 {
    if let Err(error) = seal_if_a_container_will_see_us() {
        return fail(&format!("{error:#}"), 1);
    }
    let line = match Line::read(std::env::args_os()) {
        Ok(line) => line,
        Err(misuse) => return refuse(&misuse),
    };
    let options = &line.global;
    if let Err(error) = log::init(options.log.as_deref(), options.log_format, options.debug) {
        return fail(&format!("{error:#}"), 1);
    }
    let global = Global::resolve(options);
    let program = line.program().to_owned();
    let command = match line.asked() {
        Ok(Asked::Do(command)) => command,
        Ok(Asked::Show(page)) => return show(&page),
        Err(misuse) => return refuse(&misuse),
    };
    let (prefix, code) = commands::failure(&command);
    match global.and_then(|global| commands::dispatch(&command, &global)) {
        Ok(code) => code,
        Err(error) => fail(&format!("{}{error:#}", prefix.replace("orlop", &program)), code),
    }
}

/// First of all, since it executes us anew: what was parsed before would be parsed twice.
/// A word that only looks like one of these verbs costs no more than that.
fn seal_if_a_container_will_see_us() -> Result<(), orlop::sys::Error> {
    const VERBS: [&str; 4] = ["create", "run", "exec", "restore"];
    let sealed = std::env::args_os().skip(1).any(|word| VERBS.iter().any(|verb| word == *verb));
    if sealed { orlop::sys::selfexe::seal() } else { Ok(()) }
}

fn refuse(misuse: &Misuse) -> i32 {
    show(&misuse.page);
    fail(&misuse.message, misuse.code)
}

fn fail(message: &str, code: i32) -> i32 {
    log::error(message);
    code
}

/// A reader that has gone away (`orlop help | head`) is no failure.
fn show(page: &str) -> i32 {
    let _ = std::io::stdout().write_all(page.as_bytes());
    0
}
