//! A client of a netcat source that sends each line once, keeps what was answered `OK`, and
//! connects again after each kill. Lines in flight at a kill are never sent again.
//!
//! Include it with `#[path = "support/netcat_client.rs"] mod netcat_client;`, beside `workload`.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::workload::{line, pause};

/// A port of loopback that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// See the module head.
pub(crate) struct Client {
    port: u16,
    connection: Option<(TcpStream, BufReader<TcpStream>)>,
    /// Number of the next line.
    pub(crate) next: u64,
    pub(crate) acknowledged: BTreeSet<u64>,
}

impl Client {
    /// Lines are numbered from `first` on.
    pub(crate) fn new(port: u16, first: u64) -> Self {
        Self {
            port,
            connection: None,
            next: first,
            acknowledged: BTreeSet::new(),
        }
    }

    pub(crate) fn connect(&mut self) {
        let start = Instant::now();
        let connected = self.connect_while(|| start.elapsed() < Duration::from_secs(60));
        assert!(connected, "the port does not answer");
    }

    /// Tries until it is connected or there is no hope; whether it is connected.
    pub(crate) fn connect_while(&mut self, mut hope: impl FnMut() -> bool) -> bool {
        while self.connection.is_none() && hope() {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => {
                    let limit = Some(Duration::from_secs(30));
                    stream.set_read_timeout(limit).unwrap();
                    let reader = BufReader::new(stream.try_clone().unwrap());
                    self.connection = Some((stream, reader));
                }
                Err(_) => pause(Duration::from_millis(3)),
            }
        }
        self.connection.is_some()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Sends `count` lines in one piece and reads their answers; an error, or an answer that is
    /// not `OK`, ends the connection.
    pub(crate) fn send(&mut self, count: u64) {
        let first = self.next;
        let Some((stream, reader)) = &mut self.connection else {
            return;
        };
        self.next += count;
        let text: String = (first..first + count).map(|n| line(n) + "\n").collect();
        if stream.write_all(text.as_bytes()).is_err() {
            self.connection = None;
            return;
        }
        for number in first..first + count {
            let mut answer = String::new();
            match reader.read_line(&mut answer) {
                Ok(_) if answer == "OK\n" => {
                    self.acknowledged.insert(number);
                }
                _ => {
                    self.connection = None;
                    return;
                }
            }
        }
    }
}
