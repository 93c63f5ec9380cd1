//! netdevices
