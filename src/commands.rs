//! The commands of the program, one file each.

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
pub mod connect;
#[cfg(feature = "client")]
pub mod ping;
pub mod serve;
#[cfg(feature = "files")]
pub mod transfer;
