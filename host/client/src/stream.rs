//! Connections: TCP, TLS and Unix sockets, whose reads and writes obey a [`Wait`].

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt},
};
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use crate::wait::{SLICE, Wait};

/// An open connection.
pub(crate) struct Stream {
    socket: Socket,
    session: Option<Box<ClientConnection>>,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream during a call.
pub(crate) struct Limited<'s> {
    stream: &'s mut Stream,
    wait: &'s Wait<'s>,
}

/// A socket during a call.
struct LimitedSocket<'s> {
    socket: &'s mut Socket,
    wait: &'s Wait<'s>,
}

// === impl Stream ===

impl Stream {
    /// Connects to the first address of a host that accepts the connection.
    pub(crate) fn connect_tcp(host: &str, port: u16, wait: &Wait<'_>) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in (host, port).to_socket_addrs()? {
            match connect_to(address, wait) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(SLICE))?;
                    stream.set_write_timeout(Some(SLICE))?;
                    return Ok(Self { socket: Socket::Tcp(stream), session: None });
                }
                Err(error) => last = error,
            }
            wait.check()?;
        }
        Err(last)
    }

    pub(crate) fn connect_unix(path: &Path, wait: &Wait<'_>) -> io::Result<Self> {
        let stream = connect_unix(path, wait)?;
        stream.set_read_timeout(Some(SLICE))?;
        stream.set_write_timeout(Some(SLICE))?;
        Ok(Self { socket: Socket::Unix(stream), session: None })
    }

    /// Performs a TLS handshake.
    pub(crate) fn start_tls(&mut self, host: &str, config: Arc<ClientConfig>, wait: &Wait<'_>) -> io::Result<()> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the host is not a valid server name"))?;
        let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut socket = LimitedSocket { socket: &mut self.socket, wait };
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        self.session = Some(Box::new(session));
        Ok(())
    }

    pub(crate) fn limited<'s>(&'s mut self, wait: &'s Wait<'s>) -> Limited<'s> {
        Limited { stream: self, wait }
    }
}

/// Opens a TCP connection. The standard library cannot stop waiting for a connection.
fn connect_to(address: SocketAddr, wait: &Wait<'_>) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = new_socket(family)?;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::INTR) => {
            until_ready(socket.as_fd(), PollFlags::OUT, wait)?;
            sockopt::socket_error(&socket)?.map_err(io::Error::from)?;
        }
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Opens a connection to a Unix socket. If the server's queue is full, connecting would block.
fn connect_unix(path: &Path, wait: &Wait<'_>) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = new_socket(AddressFamily::UNIX)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => break,
            // There is no event for space in the queue, so connecting is repeated.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                wait.check()?;
                std::thread::sleep(wait.slice()?.min(Duration::from_millis(5)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?)
}

/// Waits until a socket is ready.
fn until_ready(socket: BorrowedFd<'_>, flags: PollFlags, wait: &Wait<'_>) -> io::Result<()> {
    loop {
        let slice = Timespec::try_from(wait.slice()?).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(socket, flags)], Some(&slice)) {
            Ok(1..) => return Ok(()),
            Ok(0) | Err(rustix::io::Errno::INTR) => wait.check()?,
            Err(error) => return Err(error.into()),
        }
    }
}

// === impl Limited ===

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = LimitedSocket { socket: &mut self.stream.socket, wait: self.wait };
        match &mut self.stream.session {
            None => socket.read(buffer),
            Some(session) => rustls::Stream::new(&mut **session, &mut socket).read(buffer),
        }
    }
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = LimitedSocket { socket: &mut self.stream.socket, wait: self.wait };
        match &mut self.stream.session {
            None => socket.write(bytes),
            Some(session) => rustls::Stream::new(&mut **session, &mut socket).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut socket = LimitedSocket { socket: &mut self.stream.socket, wait: self.wait };
        match &mut self.stream.session {
            None => Ok(()),
            Some(session) => rustls::Stream::new(&mut **session, &mut socket).flush(),
        }
    }
}

// === impl LimitedSocket ===

impl LimitedSocket<'_> {
    /// Repeats an operation that a socket ends after [`SLICE`], until it succeeds or the caller must stop to wait.
    fn repeat(
        &mut self,
        flags: PollFlags,
        mut operation: impl FnMut(&mut Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            // The timeout of the socket is fixed, which saves a system call. Shorter waits need `poll`.
            if self.wait.slice()? < SLICE {
                until_ready(self.socket.as_fd(), flags, self.wait)?;
            }
            match operation(self.socket) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    self.wait.check()?;
                }
                result => return result,
            }
        }
    }
}

impl Read for LimitedSocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.repeat(PollFlags::IN, |socket| match socket {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        })
    }
}

impl Write for LimitedSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.repeat(PollFlags::OUT, |socket| match socket {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Socket ===

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
