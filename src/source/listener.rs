//! The one listener of all network sources: binds, accepts, limits, stops.
//!
//! *Place in the flow*: a source binds a [`Listener`] when its run begins and hands each
//! connection to a handler of its own through [`Listener::serve`].
//!
//! *Invariants*: the port is bound with `SO_REUSEADDR`, so that a new process gets it at once
//! after the old one was killed, although connections of the old one are in TIME_WAIT. Beyond
//! the limit connections wait in the backlog, they are not refused. When `serve` returns, the
//! port is closed and no connection is left.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;

use super::{Shutdown, SourceContext, SourceError};

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 1024;
/// Pause after an error of accept that is about us (no more descriptors), not about the client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to end after the stop signal.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    connections_max: usize,
}

impl Listener {
    /// Binds the first address of `host` that can be bound.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] with what to do: the name is unknown, or the address is in
    /// use or not ours.
    pub async fn bind(
        source_name: &str,
        host: &str,
        port: u16,
        connections_max: usize,
    ) -> Result<Self, SourceError> {
        let unavailable = |reason| SourceError::Unavailable {
            source_name: source_name.to_owned(),
            reason,
        };
        let resolved = lookup_host((host, port)).await;
        let addresses = resolved.map_err(|error| {
            unavailable(format!("cannot resolve bind address '{host}': {error}"))
        })?;
        let mut last = format!("bind address '{host}' has no addresses");
        for address in addresses {
            match listen(address) {
                Ok(socket) => {
                    let address = socket.local_addr().unwrap_or(address);
                    tracing::info!(source = source_name, %address, "listening");
                    return Ok(Self {
                        socket,
                        address,
                        connections_max,
                    });
                }
                Err(error) => {
                    last = format!(
                        "cannot listen on {address}: {error}; free the port or change bind and port"
                    );
                }
            }
        }
        Err(unavailable(last))
    }

    /// Where it listens; tells the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until the shutdown signal or until a handler fails. Each handler gets a context
    /// whose signal is given when connections have to end.
    pub async fn serve<H, F>(self, context: SourceContext, handler: H) -> Result<(), SourceError>
    where
        H: Fn(TcpStream, SocketAddr, SourceContext) -> F,
        F: Future<Output = Result<(), SourceError>> + Send + 'static,
    {
        let (trigger, inner) = Shutdown::new();
        let outer = context.shutdown.clone();
        let context = SourceContext {
            shutdown: inner,
            ..context
        };
        let mut connections = JoinSet::new();
        let mut result = loop {
            tokio::select! {
                () = outer.wait() => break Ok(()),
                Some(ended) = connections.join_next() => {
                    context.counters.open_connections.decrement();
                    if let Err(error) = finished(ended, &context) {
                        break Err(error);
                    }
                }
                accepted = self.socket.accept(), if connections.len() < self.connections_max => {
                    match accepted {
                        Ok((stream, peer)) => {
                            context.counters.open_connections.increment();
                            connections.spawn(handler(stream, peer, context.clone()));
                        }
                        Err(error) => refused(&error, &context).await,
                    }
                }
            }
        };
        // The port closes first: nobody connects to a source that is about to go.
        drop(self.socket);
        trigger.stop();
        let ended = tokio::time::timeout(STOP_LIMIT, async {
            while let Some(ended) = connections.join_next().await {
                context.counters.open_connections.decrement();
                let ended = finished(ended, &context);
                if result.is_ok() {
                    result = ended;
                }
            }
        });
        if ended.await.is_err() {
            let left = connections.len();
            tracing::warn!(source = %context.name, left, "connections cut at the stop: their \
                clients did not read the answers");
            connections.shutdown().await;
            for _ in 0..left {
                context.counters.open_connections.decrement();
            }
        }
        result
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn finished(
    ended: Result<Result<(), SourceError>, tokio::task::JoinError>,
    context: &SourceContext,
) -> Result<(), SourceError> {
    match ended {
        Ok(result) => result,
        Err(error) => {
            context.counters.processing_fails.increment();
            tracing::error!(source = %context.name, %error, "a connection's task has failed");
            Ok(())
        }
    }
}

async fn refused(error: &std::io::Error, context: &SourceContext) {
    use std::io::ErrorKind;
    if matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    ) {
        return;
    }
    context.counters.processing_fails.increment();
    tracing::warn!(source = %context.name, %error, "cannot accept a connection; trying again");
    context.shutdown.wait_for(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use std::sync::Arc;

    use super::*;
    use crate::source::testing::{Fake, context};

    async fn echo(
        mut stream: TcpStream,
        _peer: SocketAddr,
        context: SourceContext,
    ) -> Result<(), SourceError> {
        let mut byte = [0];
        loop {
            tokio::select! {
                () = context.shutdown.wait() => return Ok(()),
                read = stream.read(&mut byte) => match read {
                    Ok(1) => stream.write_all(&byte).await.unwrap(),
                    _ => return Ok(()),
                },
            }
        }
    }

    #[tokio::test]
    async fn a_port_binds_again_at_once_although_its_connections_linger() {
        let mut port = 0;
        for _ in 0..3 {
            let listener = Listener::bind("s", "127.0.0.1", port, 10).await.unwrap();
            port = listener.address().port();
            let (trigger, context) = context(&Fake::new(), "s");
            let counters = Arc::clone(&context.counters);
            let serve = tokio::spawn(listener.serve(context, echo));
            let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            client.write_all(b"x").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'x');
            assert_eq!(counters.open_connections.get(), 1);
            // The server closes first, so that the connection's end stays with the port.
            trigger.stop();
            serve.await.unwrap().unwrap();
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(counters.open_connections.get(), 0);
        }
    }

    #[tokio::test]
    async fn a_port_in_use_and_an_unknown_host_say_what_to_do() {
        let first = Listener::bind("s", "127.0.0.1", 0, 10).await.unwrap();
        let port = first.address().port();
        let error = Listener::bind("s", "127.0.0.1", port, 10)
            .await
            .unwrap_err();
        assert!(matches!(error, SourceError::Unavailable { .. }));
        assert!(
            error.to_string().contains(&format!("127.0.0.1:{port}")),
            "{error}"
        );
        let error = Listener::bind("s", "no such host", 1, 10)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no such host"), "{error}");
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait_for_their_turn() {
        let listener = Listener::bind("s", "127.0.0.1", 0, 1).await.unwrap();
        let address = listener.address();
        let (trigger, context) = context(&Fake::new(), "s");
        let counters = Arc::clone(&context.counters);
        let serve = tokio::spawn(listener.serve(context, echo));
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"1").await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'1');
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"2").await.unwrap();
        first.write_all(b"3").await.unwrap();
        assert_eq!(first.read_u8().await.unwrap(), b'3');
        assert_eq!(counters.open_connections.get(), 1);
        drop(first);
        assert_eq!(second.read_u8().await.unwrap(), b'2');
        trigger.stop();
        serve.await.unwrap().unwrap();
    }
}
