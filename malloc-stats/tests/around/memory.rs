//! The memory of a live process as the walker sees it, by `/proc/PID/mem` and `pagemap`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use malloc_stats::heap::{AddressSpace, PageState, Run};
use malloc_stats::inspect::Target;
use malloc_stats::mappings::Mapping;

pub struct Memory {
    mappings: Vec<Mapping>,
    memory: File,
    pagemap: File,
}

impl Memory {
    pub fn of(target: &Target) -> Self {
        Self {
            mappings: target.mappings().unwrap(),
            memory: target.memory().unwrap().try_clone().unwrap(),
            pagemap: target.file("pagemap").unwrap(),
        }
    }
}

impl AddressSpace for Memory {
    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn residency(&self, range: Range<u64>, runs: &mut Vec<Run>) -> io::Result<()> {
        let mut entry = [0; 8];
        for page in range.step_by(4096) {
            self.pagemap.read_exact_at(&mut entry, page / 4096 * 8)?;
            if u64::from_ne_bytes(entry) >> 63 == 0 {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.range.end == page => run.range.end += 4096,
                _ => runs.push(Run {
                    range: page..page + 4096,
                    state: PageState::Resident,
                }),
            }
        }
        Ok(())
    }

    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        self.memory.read_exact_at(into, address)
    }
}
