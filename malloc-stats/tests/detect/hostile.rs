//! Mapped files that lie about themselves, or are not what they seem.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use malloc_stats::Metric;
use malloc_stats::inspect::{Detection, Target, detect};
use malloc_stats::mappings::{self, Mapping};
use proptest::prelude::*;

/// What is found in this process if these were all its mappings.
fn detection(maps: &str) -> Detection {
    let target = Target::open(std::process::id()).unwrap();
    let rss = |mapping: &Mapping| Metric::Exact(mapping.len());
    detect(&target, &mappings::parse(maps), &rss)
}

/// A line that says this file is mapped with code in it.
fn line(path: &Path, address: u64) -> String {
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let end = address + 0x10000;
    format!(
        "{address:x}-{end:x} r-xp 00000000 fe:00 {inode} {}\n",
        path.display()
    )
}

#[test]
fn neither_a_fifo_nor_a_device_nor_a_directory_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("libc.so.6");
    let name = CString::new(fifo.to_str().unwrap()).unwrap();
    // SAFETY: mkfifo(3) reads a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let paths = [fifo.as_path(), Path::new("/dev/zero"), directory.path()];
    for path in paths {
        let found = detection(&line(path, 0x7000_0000_0000));
        assert!(
            !found.notes.is_empty() || found.detected.reason.is_some(),
            "{found:?}"
        );
        let text = format!("{found:?}");
        assert!(text.contains("no regular file"), "{text}");
    }
}

#[test]
fn what_is_no_elf_file_has_no_malloc() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("text.so");
    for bytes in [&b""[..], b"\x7fEL", b"malloc mallctl", &[0x7f; 4096]] {
        fs::write(&path, bytes).unwrap();
        let found = detection(&line(&path, 0x7000_0000_0000));
        assert_eq!(found.detected.name, "unknown");
        assert!(found.detected.reason.is_some() && found.libcs.is_empty());
    }
    assert_eq!(detection("").detected.name, "unknown");
}

/// The C library of this process: a real file to damage.
fn a_library() -> Option<Vec<u8>> {
    let target = Target::open(std::process::id()).unwrap();
    let mappings = target.mappings().unwrap();
    let found = detect(&target, &mappings, &|_| Metric::Unavailable);
    fs::read(&found.libcs.first()?.path).ok()
}

#[test]
fn a_file_that_claims_enormous_sizes_costs_little() {
    let Some(bytes) = a_library() else {
        return println!("skipped: this process has no glibc that can be read");
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("libc.so.6");
    let file = File::create(&path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    // A hole of 16 TiB behind it, where the file system has such; sizes of segments and sections
    // up to there are then no lie.
    let _ = file.set_len(1 << 44).or_else(|_| file.set_len(1 << 40));
    for at in (16..1024_u64).step_by(8) {
        let before = u64::from_le_bytes(bytes[at as usize..][..8].try_into().unwrap());
        for lie in [1 << 43, u64::MAX] {
            file.write_all_at(&u64::to_le_bytes(lie), at).unwrap();
            let _ = detection(&line(&path, 0x7000_0000_0000));
        }
        file.write_all_at(&before.to_le_bytes(), at).unwrap();
    }
    let found = detection(&line(&path, 0x7000_0000_0000));
    assert_eq!(found.libcs.len(), 1, "whole again: {found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_libraries_are_survived(
        damage in prop::collection::vec((0_usize..4096, any::<u8>()), 1..40),
        tables in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..200),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        if let Some(mut bytes) = a_library() {
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            // The hash, symbol and string tables come first.
            let front = bytes.len().min(160 << 10);
            for (at, byte) in tables {
                bytes[at.index(front)] = byte;
            }
            bytes[..4].copy_from_slice(b"\x7fELF");
            if cut {
                bytes.truncate(length.index(bytes.len()));
            }
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("libc.so.6");
            fs::write(&path, &bytes).unwrap();
            let found = detection(&line(&path, 0x7000_0000_0000));
            prop_assert!(found.libcs.len() <= 1);
        }
    }

    #[test]
    fn any_elf_like_bytes_are_survived(
        class in 1_u8..=2,
        order in 1_u8..=2,
        rest in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("any.so");
        let mut bytes = vec![0x7f, b'E', b'L', b'F', class, order, 1];
        bytes.extend(rest);
        fs::write(&path, &bytes).unwrap();
        prop_assert_eq!(detection(&line(&path, 0x7000_0000_0000)).detected.name, "unknown");
    }
}
