//! From files to a device through a bounded buffer: while one half is transferred, the other is
//! read.

use std::ptr::{NonNull, null_mut};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::error::LoadError;
use crate::model::Model;
use crate::observe::LoadObserver;
use crate::storage::{Target, WIDEST, open_sources, read_targets};

/// Bytes of one tensor on their way to a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    /// The tensor's position in the model's table.
    pub(crate) tensor: usize,
    /// Where in the tensor they belong.
    pub(crate) offset: usize,
    pub(crate) bytes: &'a [u8],
}

/// A part of a tensor in a buffer.
#[derive(Debug, Clone, Copy)]
struct Part {
    tensor: usize,
    offset: usize,
    at: usize,
    len: usize,
}

/// What is read into one half of the buffer at a time.
fn chunks(model: &Model, half: usize) -> Vec<Vec<Part>> {
    let mut chunks: Vec<Vec<Part>> = Vec::new();
    let mut at = half;
    let tensors = model.tensors().iter().enumerate();
    for (index, tensor) in tensors.filter(|(_, tensor)| tensor.tied_to.is_none()) {
        let len = tensor.bytes as usize;
        let mut offset = 0;
        // No part ends within an element: what is computed comes whole.
        at = at.next_multiple_of(WIDEST);
        while offset < len {
            if at == half {
                chunks.push(Vec::new());
                at = 0;
            }
            let part = (len - offset).min(half - at);
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(Part {
                    tensor: index,
                    offset,
                    at,
                    len: part,
                });
            }
            at += part;
            offset += part;
        }
    }
    chunks
}

/// Memory of its own, gone when dropped: what is staged must not fragment the heap.
struct Buffer {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is the buffer's alone.
unsafe impl Send for Buffer {}

impl Buffer {
    fn new(model: &Model, len: usize) -> Result<Buffer, LoadError> {
        // SAFETY: a fresh mapping, not fixed.
        let mapped = unsafe {
            mmap_anonymous(
                null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let at = mapped.map_err(|errno| LoadError::Memory {
            model: model.name().to_owned(),
            bytes: len as u64,
            reason: format!("for staging: {errno}"),
        })?;
        Ok(Buffer {
            at: NonNull::new(at.cast()).unwrap_or(NonNull::dangling()),
            len,
        })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as it lives; pages that were never written read as zero.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: its own mapping, which nobody uses any more.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
    }
}

/// Reads a model's files in order and hands every byte to `upload`, through two buffers that are
/// `staging` bytes together.
///
/// # Errors
/// What reading gives, or what `upload` gives, which ends it.
pub(crate) fn stream(
    model: &Model,
    staging: u64,
    observer: &dyn LoadObserver,
    mut upload: impl FnMut(Piece<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let page = rustix::param::page_size();
    let half = usize::try_from(staging / 2).unwrap_or(page) / page * page;
    let half = half.max(page);
    let sources = open_sources(model)?;
    for tensor in model.tensors() {
        observer.before_tensor(model, tensor);
        observer.after_tensor(model, tensor);
    }
    let chunks = chunks(model, half);
    let read = |buffer: &mut Buffer, chunk: &[Part]| {
        let targets: Vec<Target> = chunk
            .iter()
            .map(|part| {
                let tensor = &model.tensors()[part.tensor];
                Target {
                    file: tensor.file,
                    offset: tensor.offset + part.offset as u64,
                    at: buffer.at.as_ptr() as usize + part.at,
                    bytes: part.len,
                }
            })
            .collect();
        // SAFETY: the buffer is borrowed for writing, and parts lie within it.
        unsafe { read_targets(model, &sources, &targets, sources.threads(), observer) }
    };
    let mut send = |buffer: &Buffer, chunk: &[Part]| {
        chunk.iter().try_for_each(|part| {
            upload(Piece {
                tensor: part.tensor,
                offset: part.offset,
                bytes: &buffer.bytes()[part.at..part.at + part.len],
            })
        })
    };
    let mut buffers = vec![Buffer::new(model, half)?, Buffer::new(model, half)?];
    if chunks.len() > 1 {
        let read = &read;
        let chunks = &chunks;
        std::thread::scope(|scope| {
            // Made here, so that they close when this ends, by an error or a panic too, and the
            // reader ends with it.
            let (full, filled) = sync_channel(1);
            let (empty, emptied) = sync_channel::<Buffer>(2);
            let reader = move |emptied: Receiver<Buffer>, full: SyncSender<_>| {
                for chunk in chunks {
                    let Ok(mut buffer) = emptied.recv() else {
                        return;
                    };
                    let result = read(&mut buffer, chunk);
                    let failed = result.is_err();
                    if full.send((buffer, result)).is_err() || failed {
                        return;
                    }
                }
            };
            let spawned = std::thread::Builder::new()
                .name("plimsoll-read".into())
                .spawn_scoped(scope, move || reader(emptied, full));
            if spawned.is_err() {
                // Without another thread, one after the other.
                return chunks.iter().try_for_each(|chunk| {
                    read(&mut buffers[0], chunk)?;
                    send(&buffers[0], chunk)
                });
            }
            for buffer in buffers.drain(..) {
                let _ = empty.send(buffer);
            }
            for chunk in chunks {
                // The reader ends early only after it has sent an error.
                let Ok((buffer, result)) = filled.recv() else {
                    break;
                };
                result?;
                send(&buffer, chunk)?;
                let _ = empty.send(buffer);
            }
            Ok(())
        })?;
    } else if let Some(chunk) = chunks.first() {
        read(&mut buffers[0], chunk)?;
        send(&buffers[0], chunk)?;
    }
    sources.still_the_same(model)
}
