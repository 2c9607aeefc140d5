//! Who is at the other end of a local socket, as the kernel says.

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Whoever is at the other end of a socket, when that end was made: who has connected, or who began
/// to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The process; absent where it is in a PID namespace that cannot be seen into from here.
    pub pid: Option<NonZeroU32>,
    /// The user, as numbered here.
    pub uid: u32,
}

impl Peer {
    /// Asks for it: `SO_PEERCRED` of `unix(7)`.
    ///
    /// # Errors
    ///
    /// It is no connected or listening socket of this kind.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Peer> {
        ask(socket)
    }
}

/// Not by rustix, whose numbers of processes are never 0: for one that cannot be seen the kernel
/// says 0.
fn ask(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut peer = MaybeUninit::<libc::ucred>::zeroed();
    let whole = size_of::<libc::ucred>() as libc::socklen_t;
    let mut length = whole;
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes at most
    // `length` bytes, which is all of the struct, and says in `length` how many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            peer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if length != whole {
        let reason = format!("SO_PEERCRED has {length} bytes, and {whole} are known");
        return Err(io::Error::other(reason));
    }
    // SAFETY: it was zeroed and then written, and all of it are integers.
    let peer = unsafe { peer.assume_init() };
    Ok(Peer {
        pid: u32::try_from(peer.pid).ok().and_then(NonZeroU32::new),
        uid: peer.uid,
    })
}
