//! A TCP proxy that loses answers or delivers requests late, in front of a real NameNode.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

#[derive(Debug, Default)]
struct State {
    lose_answers: bool,
    hold_requests: bool,
    held: bool,
    answers: u64,
    connections: u64,
    /// Connections with a lower number are open and dead.
    hung_below: u64,
}

/// Forwards one port of loopback to another until the test ends.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Proxy {
    /// Starts forwarding to `upstream` (host:port).
    pub(crate) fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let (upstream, shared) = (upstream.to_owned(), Arc::clone(&state));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&upstream) else {
                    continue;
                };
                let (c, s) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let requests = Arc::clone(&shared);
                thread::spawn(move || forward_requests(client, server, &requests));
                let answers = Arc::clone(&shared);
                thread::spawn(move || forward_answers(s, c, &answers));
            }
        });
        Self { port, state }
    }

    pub(crate) fn uri(&self) -> String {
        format!("hdfs://127.0.0.1:{}", self.port)
    }

    /// From now on a call is executed, its answer is thrown away and the connection cut.
    pub(crate) fn lose_answers(&self, yes: bool) {
        self.state.0.lock().unwrap().lose_answers = yes;
    }

    /// The connections that exist stay open and carry nothing any more; new ones work.
    pub(crate) fn hang_connections(&self) {
        let mut state = self.state.0.lock().unwrap();
        state.hung_below = state.connections;
    }

    /// From now on requests wait in the proxy, also when their client has hung up.
    pub(crate) fn hold_requests(&self) {
        self.state.0.lock().unwrap().hold_requests = true;
    }

    /// Waits until a request is held.
    pub(crate) fn wait_held(&self) {
        let (state, changed) = &*self.state;
        drop(
            changed
                .wait_while(state.lock().unwrap(), |s| !s.held)
                .unwrap(),
        );
    }

    /// Lets the held requests go, and waits until the server has answered one.
    pub(crate) fn release_and_wait_for_answer(&self) {
        let (state, changed) = &*self.state;
        let mut guard = state.lock().unwrap();
        guard.hold_requests = false;
        let before = guard.answers;
        changed.notify_all();
        drop(changed.wait_while(guard, |s| s.answers == before).unwrap());
    }
}

fn forward_requests(
    mut client: TcpStream,
    mut server: TcpStream,
    shared: &(Mutex<State>, Condvar),
) {
    let (state, changed) = shared;
    let number = {
        let mut guard = state.lock().unwrap();
        guard.connections += 1;
        guard.connections - 1
    };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        let mut guard = state.lock().unwrap();
        guard.held = guard.hold_requests;
        changed.notify_all();
        drop(
            changed
                .wait_while(guard, |s| s.hold_requests || number < s.hung_below)
                .unwrap(),
        );
        if server.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    // The server is not told that the client is gone, so that a held request is still executed.
}

fn forward_answers(mut server: TcpStream, mut client: TcpStream, shared: &(Mutex<State>, Condvar)) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        let (state, changed) = shared;
        let lose = {
            let mut guard = state.lock().unwrap();
            guard.answers += 1;
            changed.notify_all();
            guard.lose_answers
        };
        if lose {
            break;
        }
        if client.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    client.shutdown(Shutdown::Both).ok();
}
