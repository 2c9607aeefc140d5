//! The bytes of a header, read as they are asked for and not kept.

use super::fault::GgufFault;
use super::parse::MAX_GGUF_BYTES;

/// What is read at first. Most headers without a vocabulary are shorter.
const FIRST_READ: usize = 64 * 1024;

/// What is read at a time once a header turns out to be long.
const MOST_READ: usize = 1 << 20;

/// The longest piece that can be asked for at once.
pub(super) const LONGEST_PIECE: usize = FIRST_READ;

/// Where bytes come from.
pub(super) trait Source {
    /// Why there are none.
    type Error;

    /// Reads some bytes at a place; none only at the end.
    fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize, Self::Error>;
}

/// Why reading stopped.
pub(super) enum Stop<E> {
    /// The bytes are no header.
    Fault(GgufFault),
    /// There are no bytes.
    Read(E),
}

impl<E> From<GgufFault> for Stop<E> {
    fn from(fault: GgufFault) -> Stop<E> {
        Stop::Fault(fault)
    }
}

/// Reads a header from its first byte on.
pub(super) struct Reader<'a, S: Source + ?Sized> {
    source: &'a S,
    file_bytes: u64,
    /// Bytes of the file from `begin` on.
    buffer: Vec<u8>,
    begin: u64,
    /// The next byte.
    at: u64,
}

impl<'a, S: Source + ?Sized> Reader<'a, S> {
    pub(super) fn new(source: &'a S, file_bytes: u64) -> Reader<'a, S> {
        Reader {
            source,
            file_bytes,
            buffer: Vec::new(),
            begin: 0,
            at: 0,
        }
    }

    /// Where in the file the next byte is.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// How many bytes of the file follow.
    pub(super) fn left(&self) -> u64 {
        self.file_bytes.saturating_sub(self.at)
    }

    /// Where so many bytes end, if the file has them and a header may.
    fn end(&self, what: &'static str, bytes: u64) -> Result<u64, GgufFault> {
        if bytes > self.left() {
            return Err(self.cut_off(what, bytes, self.left()));
        }
        let end = self.at + bytes;
        if end > MAX_GGUF_BYTES {
            return Err(GgufFault::TooLong { end });
        }
        Ok(end)
    }

    fn cut_off(&self, what: &'static str, needs: u64, left: u64) -> GgufFault {
        GgufFault::CutOff {
            what,
            at: self.at,
            needs,
            left,
        }
    }

    /// The next `len` bytes, at most [`LONGEST_PIECE`].
    pub(super) fn piece(
        &mut self,
        what: &'static str,
        len: usize,
    ) -> Result<&[u8], Stop<S::Error>> {
        let end = self.end(what, len as u64)?;
        if end > self.begin + self.buffer.len() as u64 {
            self.fill(what, len)?;
        }
        let from = (self.at - self.begin) as usize;
        self.at = end;
        Ok(&self.buffer[from..from + len])
    }

    /// Reads on from the next byte, at least `len` bytes.
    fn fill(&mut self, what: &'static str, len: usize) -> Result<(), Stop<S::Error>> {
        let more = (self.buffer.len() * 2).clamp(FIRST_READ, MOST_READ);
        let more = self.left().min(more as u64) as usize;
        self.begin = self.at;
        self.buffer.resize(more, 0);
        let mut read = 0;
        while read < len {
            let into = &mut self.buffer[read..];
            let got = self.source.read_at(into, self.begin + read as u64);
            match got.map_err(Stop::Read)? {
                // It was cut since its size was asked for.
                0 => return Err(self.cut_off(what, len as u64, read as u64).into()),
                got => read += got,
            }
        }
        self.buffer.truncate(read);
        Ok(())
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], Stop<S::Error>> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.piece(what, N)?);
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Stop<S::Error>> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Stop<S::Error>> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Passes over bytes without reading them. That they are there shows when more is read, or by
    /// [`end_header`](Self::end_header).
    pub(super) fn skip(&mut self, what: &'static str, bytes: u64) -> Result<(), GgufFault> {
        self.at = self.end(what, bytes)?;
        Ok(())
    }

    /// Makes sure that what was passed over last is there.
    pub(super) fn end_header(&mut self, what: &'static str) -> Result<(), Stop<S::Error>> {
        if self.at > self.begin + self.buffer.len() as u64 {
            self.at -= 1;
            self.piece(what, 1)?;
        }
        Ok(())
    }

    /// A text with its length in front: a key or a name.
    pub(super) fn name(&mut self, what: &'static str) -> Result<Box<str>, Stop<S::Error>> {
        let at = self.at;
        let bytes = self.u64(what)?;
        self.end(what, bytes)?;
        if bytes > MAX_NAME_BYTES {
            return Err(GgufFault::LongName { what, at, bytes }.into());
        }
        let text = trimmed(self.piece(what, bytes as usize)?);
        match str::from_utf8(text) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(GgufFault::NotUtf8 { what, at }.into()),
        }
    }
}

/// The longest key that the format allows, bytes, and more than any program takes of a name.
pub(super) const MAX_NAME_BYTES: u64 = 65_535;
const _: () = assert!(MAX_NAME_BYTES <= LONGEST_PIECE as u64);

/// Strings do not end with zeros, but some programs write them.
pub(super) fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., 0] = text {
        text = rest;
    }
    text
}
