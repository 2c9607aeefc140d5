//! The one thread that serves all clients: it sleeps in `poll` until there is something to do.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::geteuid;

use super::Host;
use super::Peer;
use super::client::{Client, turn_away};
use super::desk::Desk;
use crate::event::Kind;
use crate::subscribe::Hearers;

/// Clients served at once.
const MOST_CLIENTS: usize = 16;

/// Events that wait for a client, before it loses some.
const CAPACITY: usize = 1024;

/// What clients have at the end, all together, to take what was told before.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// For so long nobody is accepted after the system refused to.
const DEAF: Duration = Duration::from_millis(200);

/// Wakes the thread: from the threads that tell events, hence one system call at most between two
/// times that it wakes.
pub(super) struct Bell {
    counter: OwnedFd,
    rung: AtomicBool,
    closing: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> rustix::io::Result<Bell> {
        Ok(Bell {
            counter: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            rung: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        })
    }

    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.counter, &1_u64.to_ne_bytes());
        }
    }

    /// Makes the thread end.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// To be called before looking at whatever was rung for.
    fn quiet(&self) {
        let _ = rustix::io::read(&self.counter, &mut [0; 8]);
        self.rung.store(false, Ordering::SeqCst);
    }
}

pub(super) struct Server {
    listener: OwnedFd,
    hearers: Arc<Hearers>,
    host: Arc<dyn Host>,
    bell: Arc<Bell>,
    desk: Arc<Desk>,
    clients: Vec<Client>,
    /// How many the host knows of.
    attended: usize,
    deaf_until: Option<Instant>,
    /// When the thread ends, whoever still reads.
    until: Option<Instant>,
}

impl Server {
    pub(super) fn new(
        listener: OwnedFd,
        hearers: Arc<Hearers>,
        host: Arc<dyn Host>,
        bell: Arc<Bell>,
        desk: Arc<Desk>,
    ) -> Server {
        Server {
            listener,
            hearers,
            host,
            bell,
            desk,
            clients: Vec::new(),
            attended: 0,
            deaf_until: None,
            until: None,
        }
    }

    /// Serves until the bell is closed.
    pub(super) fn run(mut self) {
        self.serve();
        self.clients.clear();
        self.tell_attendance();
        self.desk.join();
    }

    fn serve(&mut self) {
        loop {
            let (called, ready) = self.wait();
            self.bell.quiet();
            if self.until.is_none() && self.bell.closing.load(Ordering::SeqCst) {
                self.until = Some(Instant::now() + LAST_WORDS);
                self.clients.iter().for_each(Client::close);
                self.desk.close();
            }
            let mut ready = ready.into_iter();
            self.clients.retain_mut(|client| {
                let ready = ready.next().unwrap_or(PollFlags::empty());
                client.serve(ready, &self.desk).is_ok()
            });
            match self.until {
                Some(until) if self.clients.is_empty() || until <= Instant::now() => return,
                None if called => self.accept(),
                _ => {}
            }
            self.tell_attendance();
        }
    }

    /// Tells the host how many are there, where that has changed.
    fn tell_attendance(&mut self) {
        let clients = self.clients.len();
        if std::mem::replace(&mut self.attended, clients) != clients {
            // A host that panics here is not told of this number; there is nobody to say it to.
            let _ = catch_unwind(AssertUnwindSafe(|| self.host.attended(clients)));
        }
    }

    /// Sleeps until something is to be done; whether somebody wants to connect, and what each
    /// client is ready for.
    fn wait(&mut self) -> (bool, Vec<PollFlags>) {
        let now = Instant::now();
        self.deaf_until = self.deaf_until.filter(|until| *until > now);
        let listens = self.deaf_until.is_none() && self.until.is_none();
        let deadlines = self.clients.iter_mut().filter_map(Client::wakes_at);
        let deadline = deadlines.chain(self.deaf_until).chain(self.until).min();
        // In whole milliseconds and one more, so as not to wake just before a deadline.
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(now).as_millis() as i64 + 1;
            Timespec {
                tv_sec: left / 1000,
                tv_nsec: left % 1000 * 1_000_000,
            }
        });
        let door = if listens {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut fds = Vec::with_capacity(2 + self.clients.len());
        fds.push(PollFd::from_borrowed_fd(
            self.bell.counter.as_fd(),
            PollFlags::IN,
        ));
        fds.push(PollFd::from_borrowed_fd(self.listener.as_fd(), door));
        let interests: Vec<PollFlags> = self.clients.iter_mut().map(Client::interest).collect();
        for (client, interest) in self.clients.iter().zip(interests) {
            fds.push(PollFd::from_borrowed_fd(client.as_fd(), interest));
        }
        if let Err(error) = poll(&mut fds, timeout.as_ref()) {
            // Nothing is known to be ready. Only for want of memory is this not an interruption.
            if error != Errno::INTR {
                std::thread::sleep(DEAF);
            }
            return (false, Vec::new());
        }
        let called = listens && !fds[1].revents().is_empty();
        (called, fds[2..].iter().map(PollFd::revents).collect())
    }

    /// Accepts one client; while more want to connect, `poll` says so again.
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => UnixStream::from(socket),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            // Too many open files, or no memory: `poll` would say the same again at once.
            Err(_) => {
                self.deaf_until = Some(Instant::now() + DEAF);
                return;
            }
        };
        if !is_allowed(&socket) || has_hung_up(&socket) {
            return;
        }
        if self.clients.len() >= MOST_CLIENTS {
            let text = format!("{MOST_CLIENTS} readers are connected already; close one of them");
            turn_away(&socket, self.hearers.now(), text);
            return;
        }
        let bell = Arc::clone(&self.bell);
        let wake = Box::new(move || bell.ring());
        // Before the greeting, so that nothing falls between.
        let (subscription, since) = self.hearers.subscribe(CAPACITY, Some(wake));
        let greeting = catch_unwind(AssertUnwindSafe(|| self.host.greeting()));
        let greeting = greeting.unwrap_or_else(|panic| {
            let text = format!("the state cannot be told: {}", message(&*panic));
            vec![Kind::Note { text }]
        });
        let mut client = Client::new(socket, subscription, since, greeting);
        if client.serve(PollFlags::empty(), &self.desk).is_ok() {
            self.clients.push(client);
        }
    }
}

/// Whether the other end is of this user, or root.
fn is_allowed(socket: &UnixStream) -> bool {
    let own = geteuid().as_raw();
    Peer::of(socket.as_fd()).is_ok_and(|peer| peer.uid == 0 || peer.uid == own)
}

/// Whether the other end is gone already, as after a look whether somebody is there.
fn has_hung_up(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|_| fds[0].revents().contains(PollFlags::HUP))
}

pub(super) fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "it panicked",
    }
}
