//! intel_rdt
