//! orlop, a low-level OCI container runtime: parses the command line, runs the verb, logs its error, exits.

#![deny(unsafe_code, clippy::indexing_slicing, clippy::string_slice, clippy::panic)]
#![no_main]

use orlop::cli::argv::{Asked, Line, Misuse};
use orlop::cli::global::Global;
use orlop::{commands, log, sys};
use std::ffi::OsString;
use std::io::Write;

#[global_allocator]
static MEMORY: orlop::sys::memory::Memory = orlop::sys::memory::Memory::new();

orlop::program!(run, not_sealed);

fn not_sealed(error: sys::Error) -> i32 {
    fail(&format!("{error}{}", sys::kernel_too_old(Some(error.errno()))), 1)
}

fn run(args: Vec<OsString>) -> i32 {
    let line = match Line::read(args) {
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
        Err(error) => {
            let old = sys::kernel_too_old(sys::errno_of(&error));
            fail(&format!("{}{error:#}{old}", prefix.replace("orlop", &program)), code)
        }
    }
}

fn refuse(misuse: &Misuse) -> i32 {
    show(&misuse.page);
    fail(&misuse.message, misuse.code)
}

fn fail(message: &str, code: i32) -> i32 {
    log::error(message);
    code
}

/// Prints a page. A write error is dropped: `orlop help | head` is no failure.
fn show(page: &str) -> i32 {
    let _ = std::io::stdout().write_all(page.as_bytes());
    0
}
