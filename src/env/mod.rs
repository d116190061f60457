//! The doors to the outside: disk, clock and random numbers. Everything the log does to a disk
//! goes through [`disk::Disk`], so that a simulated disk sees every store.
pub mod clock;
pub mod disk;
pub mod disk_real;
#[cfg(any(test, feature = "simulation"))]
pub mod disk_sim;
pub mod random;
pub mod region;
