//! Did the knobs take? What can be read back is read, what can be probed is probed, and the rest
//! is graded *requested*.

use std::ffi::CString;

use malloc_stats::provider::{Implementation, Provider};
use malloc_stats::{Allocator, AllocatorKind, Setting, SettingGrade, Settings};

use crate::knob::{Knob, Takes};
use crate::malloc::Malloc;
use crate::profile::{Profile, Reclaim};

/// The allocator that serves and the settings of a profile, each with how well it is known to be
/// in force. Called after [`apply`](crate::apply), while there is one thread: the probe of glibc's
/// mmap threshold compares two counts.
#[must_use]
pub fn in_force(profile: &Profile) -> Allocator {
    let mut settings = Settings::default();
    for (knob, requested) in profile.knobs() {
        settings.insert(knob.name, check(knob, requested));
    }
    let works = match profile.reclaim {
        Reclaim::None => true,
        Reclaim::Trim => is_glibc(),
        Reclaim::Purge => crate::serving() == AllocatorKind::Jemalloc,
    };
    settings.insert(
        "reclaim",
        Setting {
            value: profile.reclaim.to_string(),
            grade: if works {
                SettingGrade::Verified
            } else {
                SettingGrade::Refused
            },
        },
    );
    Allocator {
        kind: crate::serving(),
        settings,
    }
}

/// Whether glibc implements `malloc` here, or something that was put before it.
fn is_glibc() -> bool {
    Provider::of_malloc().implementation == Implementation::Glibc
}

fn check(knob: &Knob, requested: &str) -> Setting {
    let requested_only = Setting {
        value: requested.to_owned(),
        grade: SettingGrade::Requested,
    };
    match knob.allocator {
        Malloc::Jemalloc => match read_option(knob) {
            Some(value) if value == requested => Setting {
                value,
                grade: SettingGrade::Verified,
            },
            Some(value) => Setting {
                value: format!("{value} (requested {requested})"),
                grade: SettingGrade::Refused,
            },
            None => requested_only,
        },
        // They serve other programs only, and `apply` has said so.
        Malloc::Mimalloc | Malloc::Tcmalloc => Setting {
            grade: SettingGrade::Refused,
            ..requested_only
        },
        Malloc::Glibc if !is_glibc() => Setting {
            grade: SettingGrade::Refused,
            ..requested_only
        },
        Malloc::Glibc if knob.name == "mmap_threshold" => {
            match requested.parse().ok().and_then(probe_mmap_threshold) {
                Some(true) => Setting {
                    grade: SettingGrade::Probed,
                    ..requested_only
                },
                Some(false) => Setting {
                    grade: SettingGrade::Refused,
                    ..requested_only
                },
                None => requested_only,
            }
        }
        Malloc::Glibc => requested_only,
    }
}

/// Whether a block above the threshold gets a mapping of its own, and one well below it does not.
/// `None` where malloc is not glibc's, or cannot be asked.
fn probe_mmap_threshold(threshold: usize) -> Option<bool> {
    // Beyond this a probe would be a burden, and glibc caps the threshold at 32 MiB anyway.
    const LARGEST_PROBE: usize = 64 << 20;
    if threshold > LARGEST_PROBE {
        return None;
    }
    let above = raises_hblks(threshold + 4096)?;
    // A small block may come out of a bin; only its *not* being mapped is asked.
    let below = if threshold > 8192 {
        raises_hblks(threshold / 2)?
    } else {
        false
    };
    Some(above && !below)
}

fn raises_hblks(bytes: usize) -> Option<bool> {
    let before = malloc_stats::glibc::mallinfo()?.hblks;
    // SAFETY: a plain allocation, not touched and freed below.
    let block = unsafe { libc::malloc(bytes) };
    if block.is_null() {
        return None;
    }
    let after = malloc_stats::glibc::mallinfo()?.hblks;
    // SAFETY: the block came from `malloc` just above.
    unsafe { libc::free(std::hint::black_box(block)) };
    Some(after > before)
}

/// Reads `opt.NAME` back from the jemalloc linked into this program.
fn read_option(knob: &Knob) -> Option<String> {
    let name = CString::new(format!("opt.{}", knob.name)).ok()?;
    let name = name.as_bytes_with_nul();
    match (knob.takes, knob.name) {
        (Takes::Flag, _) => {
            // SAFETY: jemalloc's manual gives the type of `opt.background_thread`, `opt.retain`
            // and `opt.tcache` as bool.
            let flag = unsafe { tikv_jemalloc_ctl::raw::read::<bool>(name) };
            flag.ok().map(|flag| flag.to_string())
        }
        (_, decay) if decay.ends_with("decay_ms") => {
            // SAFETY: `opt.*_decay_ms` are of type ssize_t.
            let time = unsafe { tikv_jemalloc_ctl::raw::read::<isize>(name) };
            time.ok().map(|time| time.to_string())
        }
        (_, "narenas") => {
            // SAFETY: `opt.narenas` is of type unsigned.
            let count = unsafe { tikv_jemalloc_ctl::raw::read::<libc::c_uint>(name) };
            count.ok().map(|count| count.to_string())
        }
        _ => {
            // SAFETY: `opt.oversize_threshold` and `opt.tcache_max` are of type size_t.
            let bytes = unsafe { tikv_jemalloc_ctl::raw::read::<usize>(name) };
            bytes.ok().map(|bytes| bytes.to_string())
        }
    }
}
