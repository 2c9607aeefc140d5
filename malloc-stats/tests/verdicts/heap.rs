//! Free memory of malloc, what keeps it, and its settings.

use malloc_stats::inspect::Severity::{Note, Warn};

use super::holder::{Holder, MIB, find, must, must_not, near};

const KEPT: [&str; 3] = ["free-but-resident", "pinned-top", "risen-threshold"];

#[test]
fn a_small_block_above_freed_ones_pins_them() {
    let Some(holder) = Holder::new(&["pinned", "once"], &[]) else {
        return;
    };
    let freed = holder.said["freed"];
    let verdicts = holder.verdicts();
    let found = must(&verdicts, "free-but-resident", Warn);
    near(found.bytes, freed, MIB);
    assert!(
        found
            .finding
            .contains("99 % of which would go back by malloc_trim(0)")
    );
    assert!(found.remedy.contains("malloc_trim(0)"));
    let found = must(&verdicts, "pinned-top", Warn);
    near(found.bytes, freed, MIB);
    let block = format!("a 24-byte block at {:#x}", holder.said["pin"]);
    assert!(found.finding.starts_with(&block), "{block}");
    assert!(found.finding.contains(" of the main arena "));
    assert!(!found.finding.contains("freed already"));
    assert!(!found.finding.contains("alone"));
    let found = must(&verdicts, "risen-threshold", Warn);
    near(found.bytes, freed, MIB);
    assert!(found.finding.contains("from 128.0 KiB to 31.0 MiB"));
    must_not(&verdicts, "thresholds-set-high");
    must_not(&verdicts, "secondary-tops");
    must_not(&verdicts, "scattered");
}

#[test]
fn nothing_is_said_after_a_trim() {
    let Some(holder) = Holder::new(&["pinned", "trimmed"], &[]) else {
        return;
    };
    assert_eq!(holder.verdicts(), []);
}

#[test]
fn nothing_is_said_where_blocks_have_mappings_of_their_own() {
    let environment = [("MALLOC_MMAP_THRESHOLD_", "131072")];
    let Some(holder) = Holder::new(&["pinned", "once"], &environment) else {
        return;
    };
    assert_eq!(holder.verdicts(), []);
}

#[test]
fn nothing_pins_a_top_that_goes_back() {
    let Some(holder) = Holder::new(&["pinned", "never"], &[]) else {
        return;
    };
    let verdicts = holder.verdicts();
    KEPT.iter().for_each(|lint| must_not(&verdicts, lint));
}

#[test]
fn a_risen_threshold_is_a_note_where_all_is_in_use() {
    let Some(holder) = Holder::new(&["pinned", "held"], &[]) else {
        return;
    };
    let verdicts = holder.verdicts();
    must(&verdicts, "risen-threshold", Note);
    must_not(&verdicts, "free-but-resident");
    must_not(&verdicts, "pinned-top");
}

#[test]
fn one_of_many_pins_is_not_blamed_for_all() {
    let Some(holder) = Holder::new(&["pinned", "often"], &[]) else {
        return;
    };
    let verdicts = holder.verdicts();
    let found = must(&verdicts, "pinned-top", Warn);
    near(found.bytes, holder.said["freed"], MIB);
    assert!(
        found
            .finding
            .contains("freeing this one alone unlocks 512.0 KiB")
    );
}

#[test]
fn a_pin_in_a_threads_cache_is_said_to_be_free_already() {
    let Some(holder) = Holder::new(&["pinned", "cached"], &[]) else {
        return;
    };
    let verdicts = holder.verdicts();
    let found = must(&verdicts, "pinned-top", Warn);
    near(found.bytes, holder.said["freed"], MIB);
    assert!(
        found
            .finding
            .contains(&format!("{:#x}", holder.said["pin"]))
    );
    assert!(
        found
            .finding
            .contains("which the program has freed already")
    );
    assert!(found.remedy.contains("tcache_count=0"));
    // And that remedy is one.
    let off = [("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")];
    let Some(holder) = Holder::new(&["pinned", "cached"], &off) else {
        return;
    };
    must_not(&holder.verdicts(), "pinned-top");
}

#[test]
fn thresholds_that_were_set_high_are_blamed_for_what_they_keep() {
    let high = [("MALLOC_MMAP_THRESHOLD_", "33554432")];
    let Some(holder) = Holder::new(&["pinned", "once"], &high) else {
        return;
    };
    let verdicts = holder.verdicts();
    let found = must(&verdicts, "thresholds-set-high", Warn);
    near(found.bytes, holder.said["freed"], MIB);
    assert!(
        found
            .finding
            .starts_with("the mmap threshold is set to 32.0 MiB, and")
    );
    must_not(&verdicts, "risen-threshold");

    let high = [
        ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
        ("MALLOC_MMAP_MAX_", "0"),
    ];
    let Some(holder) = Holder::new(&["pinned", "never"], &high) else {
        return;
    };
    let verdicts = holder.verdicts();
    let found = must(&verdicts, "thresholds-set-high", Warn);
    assert!(found.finding.contains("M_MMAP_MAX is 0"));
    assert!(
        found
            .finding
            .contains("the trim threshold is set to 1.00 GiB")
    );
    // No block pins it: the threshold alone does.
    must_not(&verdicts, "pinned-top");
}

#[test]
fn thresholds_that_were_set_high_are_not_blamed_where_all_is_in_use() {
    let high = [("MALLOC_MMAP_THRESHOLD_", "33554432")];
    let Some(holder) = Holder::new(&["pinned", "held"], &high) else {
        return;
    };
    assert_eq!(holder.verdicts(), []);
}

#[test]
fn tops_of_threads_arenas_are_told_from_what_a_trim_returns() {
    let Some(holder) = Holder::new(&["tops"], &[]) else {
        return;
    };
    let verdicts = holder.verdicts();
    let found = must(&verdicts, "secondary-tops", Warn);
    near(found.bytes, holder.said["freed"], MIB);
    assert!(found.finding.contains("at the tops of 2 arenas"));
    assert!(found.finding.contains("trim threshold of 62.0 MiB"));
    let free = must(&verdicts, "free-but-resident", Warn);
    assert!(free.remedy.starts_with("a trim leaves the tops of arenas"));
    must_not(&verdicts, "scattered");
    must_not(&verdicts, "pinned-top");
    // And the remedy is one, with blocks in arenas all the same.
    let shrinks = [("MALLOC_TRIM_THRESHOLD_", "131072")];
    let Some(holder) = Holder::new(&["tops"], &shrinks) else {
        return;
    };
    assert_eq!(holder.verdicts(), []);
}

#[test]
fn free_memory_between_small_blocks_is_out_of_reach() {
    let Some(holder) = Holder::new(&["scattered", "4"], &[]) else {
        return;
    };
    let verdicts = holder.verdicts();
    let found = must(&verdicts, "scattered", Warn);
    near(found.bytes, holder.said["freed"], MIB);
    let free = must(&verdicts, "free-but-resident", Warn);
    assert!(free.finding.contains("none of which would go back"));
    assert!(free.remedy.starts_with("a trim returns little of it"));
}

#[test]
fn thresholds_are_not_blamed_for_what_lies_between_small_blocks() {
    let Some(holder) = Holder::new(&["risen-and-scattered", "4"], &[]) else {
        return;
    };
    let verdicts = holder.verdicts();
    must(&verdicts, "scattered", Warn);
    must(&verdicts, "risen-threshold", Note);
    let high = [("MALLOC_MMAP_THRESHOLD_", "33554432")];
    let Some(holder) = Holder::new(&["scattered", "4"], &high) else {
        return;
    };
    must_not(&holder.verdicts(), "thresholds-set-high");
}

#[test]
fn free_memory_in_long_runs_is_in_reach() {
    let Some(holder) = Holder::new(&["scattered", "1024"], &[]) else {
        return;
    };
    let verdicts = holder.verdicts();
    must_not(&verdicts, "scattered");
    must(&verdicts, "free-but-resident", Warn);
}

#[test]
fn waste_in_many_arenas_is_told_from_waste_in_one() {
    let Some(holder) = Holder::new(&["arenas"], &[("MALLOC_ARENA_MAX", "16")]) else {
        return;
    };
    let verdicts = holder.verdicts();
    let found = must(&verdicts, "many-arenas", Note);
    near(found.bytes, holder.said["freed"], MIB);
    assert!(found.finding.contains("over 12 of 13 arenas"));
    let Some(holder) = Holder::new(&["arenas"], &[("MALLOC_ARENA_MAX", "1")]) else {
        return;
    };
    let verdicts = holder.verdicts();
    must_not(&verdicts, "many-arenas");
}

#[test]
fn a_raised_tcache_count_hoards() {
    let most = [("GLIBC_TUNABLES", "glibc.malloc.tcache_count=65535")];
    let Some(holder) = Holder::new(&["cached"], &most) else {
        return;
    };
    if holder
        .inspect()
        .heap
        .unwrap()
        .settings
        .unwrap()
        .tcache_count
        != 65535
    {
        return println!("skipped: this glibc takes no such count");
    }
    let found = holder.verdicts();
    let found = must(&found, "tcache-hoard", Warn);
    near(found.bytes, 65535 * 1040, 4096);
    assert!(found.finding.contains("65535 blocks of a size"));
    let Some(holder) = Holder::new(&["cached"], &[]) else {
        return;
    };
    assert!(find(&holder.verdicts(), "tcache-hoard").is_none());
}
