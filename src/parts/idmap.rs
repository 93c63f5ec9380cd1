//! idmap
