//! What a command prints: taken in as it comes, so that it fills no disk, and forgotten but for its
//! end.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

/// What is kept, bytes.
const KEPT: usize = 2000;
/// Read at a time, bytes: what a pipe holds (`pipe(7)`).
const CHUNK: usize = 64 << 10;

/// A pipe that somebody prints to, and the thread that reads it.
#[derive(Debug)]
pub(crate) struct Printed {
    stop: OwnedFd,
    thread: JoinHandle<Vec<u8>>,
}

impl Printed {
    /// Begins to read; gives the end that is to be printed to.
    pub(crate) fn begin() -> io::Result<(File, Printed)> {
        let (reader, writer) = io::pipe()?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = stop.try_clone()?;
        let thread = std::thread::Builder::new()
            .name("plimsoll-print".to_owned())
            .spawn(move || read(reader, &bell))?;
        let writer = File::from(OwnedFd::from(writer));
        Ok((writer, Printed { stop, thread }))
    }

    /// The last that was printed until now. Whoever still holds the other end is not waited for.
    pub(crate) fn end(self) -> Vec<u8> {
        // Full only if it was rung before.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        self.thread.join().unwrap_or_default()
    }
}

fn read(mut reader: PipeReader, stop: &OwnedFd) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut fds = [
            PollFd::new(&reader, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return kept,
        }
        let [printed, stopped] = fds.map(|fd| !fd.revents().is_empty());
        if !printed {
            if stopped {
                return kept;
            }
            continue;
        }
        match reader.read(&mut chunk) {
            Ok(0) => return kept,
            Ok(length) => keep(&mut kept, &chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return kept,
        }
        if stopped {
            // What a pipe holds was taken; who goes on printing is not of this run any more.
            return kept;
        }
    }
}

fn keep(kept: &mut Vec<u8>, new: &[u8]) {
    let new = &new[new.len().saturating_sub(KEPT)..];
    let old = kept.len().saturating_sub(KEPT - new.len());
    kept.drain(..old.min(kept.len()));
    kept.extend_from_slice(new);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use super::*;

    #[test]
    fn of_much_the_end_is_kept() {
        let (mut writer, printed) = Printed::begin().unwrap();
        for at in 0..30_000 {
            writeln!(writer, "line {at}").unwrap();
        }
        drop(writer);
        let end = String::from_utf8(printed.end()).unwrap();
        assert_eq!(end.len(), KEPT);
        assert!(end.ends_with("line 29998\nline 29999\n"));
    }

    #[test]
    fn whoever_holds_the_other_end_is_not_waited_for() {
        let (mut writer, printed) = Printed::begin().unwrap();
        writer.write_all(b"as far as this").unwrap();
        assert_eq!(printed.end(), b"as far as this");
        assert!(writer.write_all(b"too late").is_err());
    }

    #[test]
    fn pieces_of_any_size_are_put_together() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(u32::to_le_bytes).collect();
        for piece in [1, 7, KEPT - 1, KEPT, KEPT + 1, 5000, text.len()] {
            let mut kept = Vec::new();
            for piece in text.chunks(piece) {
                keep(&mut kept, piece);
            }
            assert_eq!(kept, &text[text.len() - KEPT..]);
        }
    }
}
