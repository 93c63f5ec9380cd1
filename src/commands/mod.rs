//! One file per verb, and which verb runs which.

pub mod create;
pub mod run;
pub mod start;
pub mod exec;
pub mod kill;
pub mod delete;
pub mod state;
pub mod list;
pub mod ps;
pub mod events;
pub mod pause;
pub mod resume;
pub mod update;
pub mod spec;
pub mod features;
