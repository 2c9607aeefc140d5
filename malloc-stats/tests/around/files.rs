//! Model-like files of a process, and what the page cache holds of them.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::PoisonError;

use malloc_stats::Metric;
use malloc_stats::inspect::{FilePages, Target, model_files};

use crate::processes::{Forked, LOOKING, as_nobody, become_nobody, is_root};

const MIB: u64 = 1 << 20;

/// A folder on a disk, which the page cache is in front of.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn files_of(child: &Forked) -> Vec<FilePages> {
    let _looking = LOOKING.read().unwrap_or_else(PoisonError::into_inner);
    let target = Target::open(child.pid).unwrap();
    let (files, notes) = model_files(&target, &target.smaps().unwrap());
    assert!(notes.is_empty(), "{notes:?}");
    files
}

fn find<'a>(files: &'a [FilePages], path: &Path) -> Option<&'a FilePages> {
    files.iter().find(|file| Path::new(&file.path) == path)
}

/// Drops what the page cache holds of a file; whether that could be done.
fn drop_from_cache(file: &File) {
    file.sync_all().unwrap();
    // SAFETY: advice about a file that is open.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(result, 0);
}

#[test]
fn a_sparse_model_that_is_half_written_is_half_cached_and_as_resident_as_it_is_touched() {
    let folder = folder();
    let path = folder.path().join("half.safetensors");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.set_len(64 * MIB).unwrap();
    file.write_all(&vec![1; 32 << 20]).unwrap();
    let descriptor = file.as_raw_fd();
    let child = Forked::new(|| {
        // SAFETY: maps the file where the kernel finds room, reads within what it holds, and
        // closes it.
        unsafe {
            let (access, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            let map = libc::mmap(std::ptr::null_mut(), 64 << 20, access, flags, descriptor, 0);
            libc::madvise(map, 64 << 20, libc::MADV_RANDOM);
            for page in (0..16 << 20).step_by(4096) {
                map.cast::<u8>().add(page).read_volatile();
            }
            libc::close(descriptor);
        }
    });
    let files = files_of(&child);
    let half = find(&files, &path).unwrap();
    assert_eq!(half.size, Metric::Exact(64 * MIB));
    assert_eq!((half.mapped, half.open, half.deleted), (true, false, false));
    assert_eq!(half.cached, Metric::Exact(32 * MIB), "{half:?}");
    let rss = half.rss.bytes().unwrap();
    // Neighbours in the page cache are mapped along, a folio at most.
    assert!((16 * MIB..=18 * MIB).contains(&rss), "{half:?}");
    assert_eq!(half.reason, None);

    fs::remove_file(&path).unwrap();
    let files = files_of(&child);
    let half = find(&files, &path).unwrap();
    assert!(half.deleted);
    if is_root() {
        // Through the mapping itself, as it has no path any more.
        assert_eq!(half.cached, Metric::Exact(32 * MIB), "{half:?}");
    } else {
        assert!(half.reason.is_some(), "{half:?}");
    }
}

#[test]
fn a_model_that_is_only_open_is_found_and_not_read() {
    let folder = folder();
    let path = folder.path().join("open.gguf");
    fs::write(&path, vec![1; 16 << 20]).unwrap();
    let file = File::open(&path).unwrap();
    let child = Forked::named(c"has-it-open");
    let cached = || {
        let files = files_of(&child);
        let model = find(&files, &path).unwrap();
        assert_eq!((model.mapped, model.open), (false, true));
        assert_eq!(
            (model.size, model.rss),
            (Metric::Exact(16 * MIB), Metric::Exact(0))
        );
        model.cached.bytes().unwrap()
    };
    assert_eq!(cached(), 16 * MIB);
    drop_from_cache(&file);
    let dropped = cached();
    if dropped == 16 * MIB {
        println!("skipped in part: this file system keeps files in memory");
        return;
    }
    assert_eq!(dropped, 0);
    file.read_exact_at(&mut vec![0; 1 << 20], 0).unwrap();
    let read = cached();
    assert!((MIB..16 * MIB).contains(&read), "{read}");
}

#[test]
fn other_files_and_small_ones_that_are_named_by_a_hash_are_left_out() {
    let folder = folder();
    let blob = |digit: &str, size| {
        let path = folder.path().join(digit.repeat(64));
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    };
    let (large, small) = (blob("a", 65 * MIB), blob("b", MIB));
    let text = folder.path().join("notes.txt");
    File::create(&text).unwrap().set_len(65 * MIB).unwrap();
    let pipe = folder.path().join("pipe.bin");
    let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: makes a pipe of this name, which ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let open = File::options().read(true).write(true).open(&pipe).unwrap();
    let opened = [&large, &small, &text].map(|path| File::open(path).unwrap());
    let child = Forked::named(c"has-them-open");
    drop((open, opened));
    let files = files_of(&child);
    assert!(find(&files, &large).is_some());
    for other in [&small, &text, &pipe] {
        assert_eq!(find(&files, other), None);
    }
}

#[test]
fn who_does_not_own_a_model_learns_its_size_and_why_no_more() {
    if !is_root() {
        println!("skipped: only root can have a file of another user opened");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roots.safetensors");
    fs::write(&path, vec![1; 4 << 20]).unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let _open = File::open(&path).unwrap();
    let child = Forked::new(|| {
        become_nobody();
        // SAFETY: sets a flag of the process.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
    });
    let files = as_nobody(|| files_of(&child));
    let model = find(&files, &path).unwrap();
    assert_eq!(model.size, Metric::Exact(4 * MIB));
    match model.cached {
        // Kernels before the check tell everybody.
        Metric::Exact(bytes) => assert_eq!(bytes, 4 * MIB),
        Metric::Unavailable => assert!(model.reason.as_ref().unwrap().contains("owner")),
        other => panic!("{other}"),
    }
}

#[test]
fn of_very_many_open_files_the_first_are_looked_at() {
    let child = Forked::new(|| {
        // SAFETY: raises a limit and duplicates a descriptor, both of this process only.
        unsafe {
            let limit = libc::rlimit {
                rlim_cur: 8192,
                rlim_max: 8192,
            };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            for _ in 0..6000 {
                libc::dup(2);
            }
        }
    });
    let target = Target::open(child.pid).unwrap();
    let (_, notes) = model_files(&target, &[]);
    if fs::read_dir(format!("/proc/{}/fd", child.pid))
        .unwrap()
        .count()
        <= 4096
    {
        println!("skipped: a process may have few files open here");
        return;
    }
    assert!(
        notes.iter().any(|note| note.contains("more than 4096")),
        "{notes:?}"
    );
}
