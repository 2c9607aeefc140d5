//! A file system with one file in it, over the kernel's own protocol (linux/fuse.h, version 7.31),
//! so that what the file's reads answer is the test's to say.
//!
//! It is mounted in a namespace of the test's own thread: nothing of it outlives the process, however
//! that ends. Nothing waits for it longer than [`LONGEST`].

#![allow(dead_code)]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The server goes away after so long, whatever a test does: then every wait for it ends.
const LONGEST: Duration = Duration::from_secs(60);

/// How the file is called.
pub const NAME: &str = "m.safetensors";

/// The numbers of requests.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;

const ROOT: u64 = 1;
const FILE: u64 = 2;

/// The length of what is before every request, and before every answer.
const REQUEST: usize = 40;
const ANSWER: usize = 16;

/// What reads answer that reach into the broken part.
#[derive(Clone, Copy)]
pub enum Broken {
    /// `EIO`.
    Fails,
    /// As if the file ended there.
    Ends,
}

/// The file that is served.
pub struct Served {
    pub bytes: Vec<u8>,
    /// Where the broken part begins, and what it is like.
    pub broken: Option<(usize, Broken)>,
    /// Whether the file system tells of itself.
    pub has_statfs: bool,
}

/// A mounted file system.
pub struct Mount {
    folder: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Mount {
    /// `None`, with a word, where nothing can be mounted.
    pub fn new(served: Served) -> Option<Mount> {
        match Mount::try_new(served) {
            Ok(mount) => Some(mount),
            Err(error) => {
                eprintln!("skipped: no file system can be mounted here ({error})");
                None
            }
        }
    }

    fn try_new(served: Served) -> io::Result<Mount> {
        let folder = tempfile::tempdir()?;
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/fuse")?;
        // SAFETY: takes no pointers; from here on this thread and those it starts see mounts of
        // their own.
        done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        mount(
            "none",
            Path::new("/"),
            "",
            libc::MS_REC | libc::MS_PRIVATE,
            "",
        )?;
        let user = rustix::process::getuid().as_raw();
        let group = rustix::process::getgid().as_raw();
        let fd = device.as_raw_fd();
        let options = format!("fd={fd},rootmode=40000,user_id={user},group_id={group}");
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        mount("plimsoll", folder.path(), "fuse", flags, &options)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let server = std::thread::spawn(move || serve(device, &served, &stopped));
        Ok(Mount {
            folder,
            stop,
            server: Some(server),
        })
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    /// The server goes away, and with the last descriptor of the device all that was asked of it.
    pub fn abort(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(server) = self.server.take() {
            server.join().unwrap();
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Ok(folder) = CString::new(self.folder.path().as_os_str().as_bytes()) {
            // SAFETY: a text that lives until the call is over.
            unsafe { libc::umount2(folder.as_ptr(), libc::MNT_DETACH) };
        }
        self.stop.store(true, Ordering::SeqCst);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn mount(what: &str, at: &Path, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let [what, kind, data] = [what, kind, data].map(|text| CString::new(text).unwrap());
    let at = CString::new(at.as_os_str().as_bytes()).unwrap();
    // SAFETY: texts that live until the call is over.
    done(unsafe {
        libc::mount(
            what.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
}

fn done(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn serve(mut device: File, served: &Served, stop: &AtomicBool) {
    let begun = Instant::now();
    let mut request = vec![0; 64 << 10];
    let a_while = Timespec {
        tv_sec: 0,
        tv_nsec: 5_000_000,
    };
    while !stop.load(Ordering::SeqCst) && begun.elapsed() < LONGEST {
        let _ = poll(&mut [PollFd::new(&device, PollFlags::IN)], Some(&a_while));
        let request = match device.read(&mut request) {
            Ok(read) => &request[..read],
            // It was unmounted.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
            Err(_) => continue,
        };
        let number = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
        let (opcode, unique) = (number(4), &request[8..16]);
        let node = long(request, 16);
        let (error, body) = match served.answer(opcode, node, &request[REQUEST..]) {
            None => continue,
            Some(Ok(body)) => (0, body),
            Some(Err(errno)) => (-errno, Vec::new()),
        };
        let length = (ANSWER + body.len()) as u32;
        let mut answer = length.to_le_bytes().to_vec();
        answer.extend(error.to_le_bytes());
        answer.extend(unique);
        answer.extend(body);
        // Whoever asked may have gone.
        let _ = device.write(&answer);
    }
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Numbers of 64 bits, then of 32.
fn numbers(long: &[u64], short: &[u32]) -> Vec<u8> {
    let long = long.iter().flat_map(|number| number.to_le_bytes());
    let short = short.iter().flat_map(|number| number.to_le_bytes());
    long.chain(short).collect()
}

impl Served {
    /// `None` for what is not answered.
    fn answer(&self, opcode: u32, node: u64, asked: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        Some(Ok(match opcode {
            FORGET | BATCH_FORGET | INTERRUPT => return None,
            // Version 7.31, nothing besides it, and pages of readahead as the kernel sees fit.
            INIT => [numbers(&[], &[7, 31, 128 << 10, 0, 0, 4096]), vec![0; 40]].concat(),
            LOOKUP if asked == [NAME.as_bytes(), b"\0"].concat() => {
                [numbers(&[FILE, 0, 0, 0], &[0, 0]), self.attributes(FILE)].concat()
            }
            LOOKUP => return Some(Err(libc::ENOENT)),
            GETATTR => [numbers(&[0], &[0, 0]), self.attributes(node)].concat(),
            OPEN => vec![0; 16],
            READ => return Some(self.read(long(asked, 8), long(asked, 16) as u32)),
            STATFS if self.has_statfs => numbers(&[0; 5], &[4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0]),
            RELEASE | FLUSH | DESTROY => Vec::new(),
            _ => return Some(Err(libc::ENOSYS)),
        }))
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = match node {
            ROOT => (libc::S_IFDIR | 0o755, 0),
            _ => (libc::S_IFREG | 0o644, self.bytes.len() as u64),
        };
        numbers(
            &[node, size, size.div_ceil(512), 1, 1, 1],
            &[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0],
        )
    }

    /// The kernel asks for many pages at once, and where it is refused for one at a time.
    fn read(&self, offset: u64, bytes: u32) -> Result<Vec<u8>, i32> {
        let from = (offset as usize).min(self.bytes.len());
        let end = (from + bytes as usize).min(self.bytes.len());
        match self.broken {
            Some((broken, Broken::Fails)) if end > broken => Err(libc::EIO),
            Some((broken, Broken::Ends)) => {
                let there = broken.clamp(from, end);
                Ok(self.bytes[from..there].to_vec())
            }
            _ => Ok(self.bytes[from..end].to_vec()),
        }
    }
}
