//! orlop, a low-level OCI container runtime for Linux.
//!
//! Said → meant → held → done → recorded:
//! - Said: `Spec`, config.json as written.
//! - Meant: `Plan`, all decisions about the container.
//! - Held: `Held`, the descriptors that init needs from the host. They are opened while the host is still in sight.
//! - Done: by two spines, `launch` in the parent and `init` in the child.
//! - Recorded: `Record`, state.json, which holds all that a later verb may know.

// Input must not make orlop panic. Where one of these is allowed, the place says why it cannot happen.
#![deny(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    clippy::unreachable,
    clippy::todo,
    clippy::unimplemented,
    clippy::get_unwrap
)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice, clippy::panic))]

pub mod bundle;
pub mod cgroup;
pub mod cli;
pub mod commands;
pub mod destroy;
pub mod failure;
pub mod foreground;
pub mod host;
pub mod init;
pub mod launch;
pub mod log;
pub mod notify;
pub mod oci_state;
pub mod parts;
pub mod plan;
pub mod spec;
pub mod state;
#[allow(unsafe_code)]
pub mod sys;
pub mod timestamp;
pub mod wire;
