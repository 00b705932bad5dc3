//! The machines of the clients: where they go, how lines travel there, and how long they wait before they try again. Pure.

pub mod backoff;
pub mod connect;
pub mod console;
pub mod ping;
pub mod screen;
mod socket;

use super::{Context, Protocol};
use std::io;
use std::net::SocketAddr;

/// How lines travel to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over TCP, as they are.
    Lines,
    /// Each as a datagram.
    Datagrams,
    /// Each as a message of a WebSocket, whose handshake names these two.
    WebSocket {
        /// `HOST:PORT`, as it was written.
        host: String,
        /// From the `/` on.
        path: String,
    },
}

/// Where a client goes.
#[derive(Clone, Debug)]
pub struct Route {
    /// As it was written, for people.
    pub name: String,
    /// What the name stands for; at least one.
    pub addresses: Vec<SocketAddr>,
    /// How lines travel there.
    pub way: Way,
}

impl Route {
    /// Begins a connection to the address of this number, counted round and round.
    fn dial(&self, context: &mut Context<'_>, number: usize, machine: Box<dyn Protocol>) {
        let to = self.addresses[number % self.addresses.len()];
        match self.way {
            Way::Lines | Way::WebSocket { .. } => context.dial(to, machine),
            Way::Datagrams => context.dial_datagrams(to, machine),
        }
    }
}

/// What the system said, without its number.
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(words, _)| words.to_string())
}
