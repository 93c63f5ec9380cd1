//! The tools that several targets share: a measure of memory, and mutations of JSON that keep it JSON.

pub mod json;
pub mod memory;
