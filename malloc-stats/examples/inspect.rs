//! Looks into another process: what its malloc holds, what of it is resident, what a trim would
//! give back, and what follows from that.
//!
//! ```sh
//! cargo run -p malloc-stats --example inspect -- PID
//! ```

use malloc_stats::inspect::{Ask, Target, inspect};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let process = std::env::args().nth(1).ok_or("say which process")?;
    let target = Target::find(&process)?;
    let inspection = inspect(&target, &Ask::default())?;
    println!("{}", serde_json::to_string_pretty(&inspection)?);
    if let Some(heap) = &inspection.heap {
        eprintln!(
            "{}: {} in use, {} free but resident; malloc_trim(0) would return {}",
            inspection.process.command,
            heap.totals.in_use,
            heap.trim.free_resident,
            heap.trim.releasable
        );
    }
    Ok(())
}
