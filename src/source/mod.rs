//! Sources, one file each.
