//! The tools of the black-box tests: a bundle that is built in one line, the runtime under test, and the
//! assertions that a user would make. This module knows only the program's command line.

mod bundle;
mod container;
mod leftovers;
mod receive;
mod runtime;

/// The container's processes, and the runtime's processes that are at work on it.
pub fn processes(bundle: &Bundle) -> Vec<i32> {
    leftovers::processes(&bundle.id, &bundle.dir).into_iter().map(|(pid, _)| pid).collect()
}

/// Everything that is left of the bundle's container on the host.
pub fn left_by(bundle: &Bundle) -> Vec<String> {
    leftovers::leftovers(&bundle.id, &bundle.dir)
}

/// The names in a directory; none if it is no directory.
pub use leftovers::names;

/// The container's cgroups, parents before their children.
pub fn cgroups(bundle: &Bundle) -> Vec<std::path::PathBuf> {
    leftovers::cgroups(&bundle.id)
}

pub use bundle::{Attempt, Bundle, bind, tmpfs};
pub use container::Container;
pub use receive::{accept_fd, terminal};
pub use runtime::{
    CGROUP_VIEW, Output, Running, View, copy_program, eventually, is_root, output, runtime, start as begin,
    under_runc, window,
};

/// Ends the test early if it cannot run here, and prints the reason: a skip without a reason looks like a pass.
#[macro_export]
macro_rules! skip_unless {
    ($condition:expr, $reason:expr) => {
        if !$condition {
            eprintln!("skipped: {}", $reason);
            return;
        }
    };
}
