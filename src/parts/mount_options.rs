//! mount_options
