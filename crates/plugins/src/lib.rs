//! The scheduling plugins, one file each.
