//! The file channel.
