//! keyctl
