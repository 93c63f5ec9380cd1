//! orlop, a low-level OCI container runtime for Linux.
//!
//! Said → meant → held → done → recorded: `Spec` (what config.json says) → `Plan` (what we shall do) →
//! `Held` (the plan plus every fd that must be opened while we still see the host) → done by two spines,
//! `launch` in the parent and `init` in the child → `Record` (state.json, all that a later verb may know).

// Input must not be able to end us in the middle: where one of these cannot happen, the place says why.
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
