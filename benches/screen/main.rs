//! What the live screen costs: frames, lines of the stream, and the whole program in a terminal.
//!
//! ```sh
//! cargo bench --bench screen [-- PART...]
//! ```
//!
//! | part | what |
//! |---|---|
//! | `live` | `plimsoll top SOCKET` on a live cache of 50 models, beside `top` of procps |
//! | `hour` | what an hour of ticks leaves in memory, and three more |
//! | `flood` | 100 000 events a second |
//! | `frames` | frames of 200 by 60 |
//! | `lines` | parsing and folding, by kind of event |
//!
//! Frames and lines are in processor time of the thread, which other programs do not lengthen. All
//! data is made on the spot. The program is the release build of this workspace, in a terminal of
//! 200 by 60 that takes whatever is written.

#![allow(clippy::unwrap_used, missing_docs)]

mod data;
mod flood;
mod frames;
mod heap;
mod lines;
mod live;
mod terminal;

use std::time::Duration;

use plimsoll_tui::table::{Align, Table};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// The size of all frames, columns and rows.
const SIZE: (u16, u16) = (200, 60);

/// What was measured, in the order of printing.
struct Results(Table);

impl Results {
    /// A number, how it spreads where it does, and what it is to stay within.
    fn row(&mut self, what: &str, measured: String, worst: String, bound: &str) {
        eprintln!("{what}: {measured} {worst}");
        self.0
            .row([what.to_owned(), measured, worst, bound.to_owned()]);
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// A part of the table.
type Part = fn(&mut Results);

fn main() {
    if heap::is_target() {
        return heap::target();
    }
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    let mut results = Results(Table::new([
        ("what", Align::Left),
        ("measured", Align::Right),
        ("p99, or most", Align::Right),
        ("to hold", Align::Right),
    ]));
    let parts: [(&str, Part); 5] = [
        ("live", live::live),
        ("hour", flood::hours),
        ("flood", flood::flood),
        ("frames", frames::frames),
        ("lines", lines::lines),
    ];
    for (name, part) in parts {
        if wanted(name) {
            part(&mut results);
        }
    }
    print!("{}", results.0);
}
