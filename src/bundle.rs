//! The bundle: the only reader of config.json.

/// config.json as it was said.
pub use oci_spec::runtime::Spec;
