//! The on-disk format of Forebay's log.
