//! `plimsoll snapshot`: this process under a profile, and the proof of which allocator serves.

use std::process::ExitCode;

use clap::Args;
use malloc_stats::{Diff, Reader, Size, Snapshot};
use plimsoll_profiles::{Profile, builtin};
use plimsoll_tui::paint::{Tone, safe};
use serde::Serialize;

use super::Done;
use crate::output::Output;

/// Show the memory of this process under a profile, and prove which allocator serves.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll snapshot                            every number, with its grade
  plimsoll snapshot --profile jemalloc-purge   jemalloc's numbers, and glibc's apart
  LD_PRELOAD=libjemalloc.so.2 plimsoll snapshot

Grades: a plain number is exact, `≤` an upper bound, `~` an estimate, `n/a` unavailable.")]
pub(crate) struct SnapshotOptions {
    /// A built-in profile, or a file
    #[arg(long, default_value = builtin::DEFAULT, value_name = "NAME|FILE")]
    profile: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Bytes that the proof allocates: larger than any threshold and any noise.
const PROOF_BYTES: usize = 32 << 20;

#[derive(Serialize)]
struct Proof<'a> {
    profile: &'a str,
    allocator: String,
    /// Bytes that Rust allocated between the two snapshots.
    allocated_bytes: usize,
    /// By how much the serving allocator's `in_use` rose; absent where it cannot be read.
    in_use_rose_bytes: Option<i64>,
    /// By how much glibc's own count rose; absent where glibc does not serve `malloc`.
    glibc_rose_bytes: Option<i64>,
    snapshot: &'a Snapshot,
}

pub(crate) fn run(options: &SnapshotOptions) -> Done {
    let profile = Profile::find(&options.profile)?;
    plimsoll_profiles::apply(&profile)?;
    let output = Output::new(options.json);
    let reader = Reader::new(plimsoll_profiles::in_force(&profile))?;
    // The first full snapshot warms up what the reader itself allocates.
    let _ = reader.full();
    let before = reader.full();
    let mut block = Vec::new();
    block.try_reserve_exact(PROOF_BYTES).map_err(|error| {
        let bytes = Size(PROOF_BYTES as u64);
        format!("no memory for the proof of who serves, {bytes}: {error}; raise `ulimit -v`")
    })?;
    block.resize(PROOF_BYTES, 1_u8);
    let block = std::hint::black_box(block);
    let with_block = reader.full();
    drop(block);
    let in_use = |snapshot: &Snapshot| snapshot.allocator.as_ref()?.in_use.bytes();
    let glibc = |snapshot: &Snapshot| {
        let info = snapshot.allocator.as_ref()?.glibc.as_ref()?;
        Some(info.uordblks + info.hblkhd)
    };
    let rose = |value: &dyn Fn(&Snapshot) -> Option<u64>| {
        Some(value(&with_block)? as i64 - value(&before)? as i64)
    };
    let proof = Proof {
        profile: &profile.name,
        allocator: reader.allocator_name(),
        allocated_bytes: PROOF_BYTES,
        in_use_rose_bytes: rose(&in_use),
        glibc_rose_bytes: rose(&glibc),
        snapshot: &before,
    };
    if options.json {
        output.value(&proof)?;
        return Ok(ExitCode::SUCCESS);
    }
    output.text(&plimsoll_tui::snapshot::text(&output.paint, &before))?;
    let signed = |bytes: Option<i64>| match bytes {
        None => "n/a".to_owned(),
        Some(bytes) if bytes < 0 => format!("-{}", Size(bytes.unsigned_abs())),
        Some(bytes) => Size(bytes.unsigned_abs()).to_string(),
    };
    let heading = output.paint.tone(Tone::Strong, "who serves");
    output.text(&format!(
        "{heading}\n  {} allocated by Rust raised what {} has in use by {}, and glibc's own count by {}\n",
        Size(PROOF_BYTES as u64),
        safe(&proof.allocator),
        signed(proof.in_use_rose_bytes),
        signed(proof.glibc_rose_bytes),
    ))?;
    let heading = output.paint.tone(Tone::Strong, "while it was held");
    output.text(&format!(
        "{heading}\n{}\n",
        Diff::between(&before, &with_block)
    ))?;
    Ok(ExitCode::SUCCESS)
}
