//! The exactly-once publisher: staged files, epochs, claims.
mod attempt;
pub mod bucket;
pub mod epoch;
pub mod hadoop_conf;
mod hdfs_errors;
pub mod names;
pub mod options;
pub mod resolver;
#[cfg(any(test, feature = "simulation"))]
mod sim_names;
pub mod sink;
pub mod startup;
pub mod store;
pub mod store_hdfs;
pub mod store_local;
pub mod store_open;
#[cfg(any(test, feature = "simulation"))]
pub mod store_sim;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
