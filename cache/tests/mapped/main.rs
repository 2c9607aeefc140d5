//! Weights that are the files themselves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod changed;
mod pages;
mod seen;
#[path = "../support/mod.rs"]
mod support;
mod written;

use plimsoll_cache::storage::{Mapping, PageCache};
use plimsoll_cache::{Builder, Storage};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// What looks at this process's memory or descriptors takes turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mapped(builder: Builder) -> Builder {
    builder.storage(Storage::Mapped)
}

fn guarded(builder: Builder) -> Builder {
    mapped(builder).mapping(Mapping {
        guard: true,
        ..Mapping::default()
    })
}

fn dropping(builder: Builder) -> Builder {
    mapped(builder).mapping(Mapping {
        page_cache: PageCache::Drop,
        ..Mapping::default()
    })
}

/// Writes a safetensors file whose data begins so many bytes off a multiple of 8.
fn file_with_data_off_by(
    path: &std::path::Path,
    off: usize,
    tensors: &[(&str, &str, Vec<usize>, Vec<u8>)],
) {
    let mut at = 0;
    let entries: Vec<String> = tensors
        .iter()
        .map(|(name, dtype, shape, data)| {
            let begin = at;
            at += data.len();
            format!(
                "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{at}]}}"
            )
        })
        .collect();
    let mut header = format!("{{{}}}", entries.join(","));
    while header.len() % 8 != off {
        header.push(' ');
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    tensors.iter().for_each(|(.., data)| bytes.extend(data));
    std::fs::write(path, bytes).unwrap();
}
