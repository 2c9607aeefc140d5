//! What glibc's malloc works by, against what was asked.

use malloc_stats::heap::{DEFAULT_MMAP_THRESHOLD, InForce};
use malloc_stats::size::Size;

use super::Took;
use super::environment::{self, Environment, Held};
use crate::knob::{Knob, Takes};
use crate::profile::Profile;

/// From 2.26 to 2.34 a higher threshold was ignored (`HEAP_MAX_SIZE / 2`).
const THRESHOLD_MAX: u64 = 32 << 20;
/// Before 2.42 a higher limit was ignored (`MAX_TCACHE_SIZE`).
const TCACHE_MAX: u64 = 1032;

/// Grades every knob by what is in force; that of a profile without any by whether malloc is as it
/// comes.
pub(super) fn compare(
    profile: &Profile,
    in_force: &InForce,
    environment: &Environment<'_>,
    took: &mut Took,
) {
    for (knob, value) in profile.knobs() {
        let Some(asked) = value.parse::<u64>().ok() else {
            took.requested(knob.name, value);
            continue;
        };
        let now = match knob.name {
            "mmap_threshold" => in_force.mmap_threshold,
            "trim_threshold" => in_force.trim_threshold,
            "top_pad" => in_force.top_pad,
            "mmap_max" => in_force.mmap_max,
            "arena_max" => in_force.arena_max,
            "tcache_count" => in_force.tcache_count,
            "tcache_max" => tcache_max(asked, in_force.tcache_max),
            "hugetlb" => {
                huge_pages(knob, asked, in_force, took);
                continue;
            }
            _ => {
                environment::check(knob, value, environment, took);
                continue;
            }
        };
        // Any of the four fixes the thresholds; where they still move, the value is only the
        // default that it happens to be.
        let moves = in_force.dynamic && fixes_thresholds(knob);
        if now == asked && !moves {
            took.verified(knob.name, value);
        } else {
            let why = not_in_force(knob, asked, now, moves, environment.sets(knob, value));
            took.refuse(knob.name, now.to_string(), why);
        }
    }
    if profile.knobs.is_empty() {
        untouched(in_force, took);
    }
}

fn fixes_thresholds(knob: &Knob) -> bool {
    ["mmap_threshold", "trim_threshold", "top_pad", "mmap_max"].contains(&knob.name)
}

/// The limit as it was asked for, where it is in force in whichever form a version keeps it: bytes
/// of the block, or from 2.42 on of its chunk, up to or below which blocks are kept.
fn tcache_max(asked: u64, now: u64) -> u64 {
    let chunk = (asked.saturating_add(8 + 15) & !15).max(32);
    if [asked, chunk, chunk + 1].contains(&now) {
        asked
    } else {
        now
    }
}

fn huge_pages(knob: &Knob, asked: u64, in_force: &InForce, took: &mut Took) {
    let (transparent, explicit) = (in_force.thp_pagesize, in_force.hp_pagesize);
    let now = match (transparent, explicit) {
        (0, 0) => 0,
        (_, 0) => 1,
        _ => 2,
    };
    if now == asked.min(2) {
        took.verified(knob.name, asked.to_string());
        return;
    }
    let why = match asked {
        0 => "huge pages are in use all the same",
        1 => {
            "glibc asks for them only where /sys/kernel/mm/transparent_hugepage/enabled says \
             `madvise`"
        }
        _ => "there are none of the kind (see /proc/meminfo, HugePages_Total)",
    };
    let why = format!("hugetlb: {now} in force, {asked} asked: {why}");
    took.refuse(knob.name, now.to_string(), why);
}

fn not_in_force(knob: &Knob, asked: u64, now: u64, moves: bool, set: Held) -> String {
    let shown = |value: u64| match knob.takes {
        Takes::Bytes => Size(value).to_string(),
        Takes::Number | Takes::Flag => value.to_string(),
    };
    let state = if moves { ", and it moves" } else { "" };
    let why = match (set, knob.name) {
        (Held::No, _) => {
            "GLIBC_TUNABLES does not have it in the environment the process was started with"
        }
        (_, "mmap_threshold") if asked > THRESHOLD_MAX => {
            "this glibc takes at most 32 MiB, and ignores more"
        }
        (_, "tcache_max") if asked > TCACHE_MAX => {
            "this glibc takes at most 1032 bytes, and ignores more"
        }
        (_, "arena_max") if asked == 0 => "glibc takes 1 and more, and ignores 0",
        (_, "mmap_threshold" | "trim_threshold" | "top_pad" | "mmap_max") if !moves => {
            "the program sets it itself (mallopt)"
        }
        _ => "glibc did not take it, or the program is privileged (setuid)",
    };
    format!(
        "{}: {} in force{state}, {} asked: {why}",
        knob.name,
        shown(now),
        shown(asked)
    )
}

/// glibc as it comes raises its threshold by itself; whatever sets one of four settings stops that.
fn untouched(in_force: &InForce, took: &mut Took) {
    let threshold = in_force.mmap_threshold;
    if in_force.dynamic {
        let risen = if threshold > DEFAULT_MMAP_THRESHOLD {
            "dynamic, risen to"
        } else {
            "dynamic, at"
        };
        took.verified("mmap_threshold", format!("{risen} {threshold}"));
    } else {
        let why = format!(
            "mmap_threshold: fixed at {}, where the profile leaves it to glibc: the program sets it \
             itself (mallopt)",
            Size(threshold)
        );
        took.refuse("mmap_threshold", format!("fixed at {threshold}"), why);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_limit_of_thread_caches_is_met_in_every_form_and_no_other() {
        assert_eq!(tcache_max(100, 100), 100);
        assert_eq!(tcache_max(100, 112), 100);
        assert_eq!(tcache_max(100, 113), 100);
        assert_eq!(tcache_max(2000, 1032), 1032);
    }

    proptest! {
        #[test]
        fn nothing_but_what_was_asked_is_verified(asked: u32, now: u32, dynamic: bool) {
            let text = format!(
                "name='n'\nwhy='w'\nallocator='glibc'\n[knobs]\ntrim_threshold={}\n",
                asked / 2
            );
            let profile = Profile::from_toml(&text, "n").unwrap();
            let in_force = InForce {
                trim_threshold: u64::from(now),
                dynamic,
                ..InForce::default()
            };
            let mut took = Took {
                allocator: "glibc".into(),
                settings: malloc_stats::Settings::default(),
                refused: Vec::new(),
                unknown: Vec::new(),
            };
            compare(&profile, &in_force, &Environment::new(None), &mut took);
            let same = u64::from(asked / 2) == u64::from(now) && !dynamic;
            prop_assert_eq!(took.is_in_force(), same);
        }
    }
}
