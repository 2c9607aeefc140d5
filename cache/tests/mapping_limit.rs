//! A process at its limit of mappings (`vm.max_map_count`), where any call that maps or moves memory
//! may fail. In a file of its own, since the limit is the whole process's.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use plimsoll_cache::Model;
use plimsoll_events::Kind;
use support::{Folder, MIB, cache, verify};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const PAGE: usize = 4096;

/// Mappings of single pages, as many as the process may still have.
struct Filler {
    base: usize,
    pages: usize,
}

impl Filler {
    fn new(limit: usize) -> Filler {
        let pages = 2 * limit;
        // SAFETY: fresh address space without access.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                pages * PAGE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        } as usize;
        let mut filler = Filler { base, pages: 0 };
        for page in (1..pages).step_by(2) {
            if !filler.protect(page, libc::PROT_READ) {
                break;
            }
            filler.pages = page;
        }
        filler
    }

    fn protect(&self, page: usize, access: libc::c_int) -> bool {
        // SAFETY: pages of the filler's own, which nobody reads.
        unsafe { libc::mprotect((self.base + page * PAGE) as *mut _, PAGE, access) == 0 }
    }

    /// Lets go of some: each is two mappings fewer.
    fn loosen(&mut self, count: usize) {
        for _ in 0..count {
            assert!(self.protect(self.pages, libc::PROT_NONE));
            self.pages -= 2;
        }
    }
}

#[test]
fn at_the_limit_of_mappings_loads_fail_or_work_and_nothing_is_lost() {
    let limit: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    if limit > 300_000 {
        return;
    }
    let folder = Folder::new();
    let models: Vec<Model> = (0..6_u64)
        .map(|n| folder.model(&format!("m{n}"), MIB / 4 + n * 70_001))
        .collect();
    let (cache, kept) = cache(|builder| builder.ram(2 * MIB));
    let round = |must_work: bool| {
        let mut worked = 0;
        for at in 0..18 {
            let model = &models[at * 5 % models.len()];
            match cache.lease([model]) {
                Ok(lease) => {
                    verify(&lease, model);
                    worked += 1;
                }
                Err(error) => assert!(!must_work, "{error}"),
            }
        }
        worked
    };
    round(true);
    let mut filler = Filler::new(limit);
    let mut all = false;
    for _ in 0..24 {
        all = round(false) == 18;
        filler.loosen(1);
    }
    assert!(all, "some mappings are enough");
    filler.loosen(100);
    let before = kept.kinds().len();
    round(true);
    let recycled = |kind: &Kind| matches!(kind, Kind::Load(load) if load.recycled_bytes > 0);
    assert!(
        kept.kinds()[before..].iter().any(recycled),
        "one failure does not end recycling"
    );
    assert_eq!(cache.clear().leased, []);
    let usage = cache.usage();
    assert_eq!((usage.used_bytes, usage.recyclable_bytes), (0, 0));
}
