//! A child of `fork` that goes on without `exec`. The weights are the parent's; what the child does
//! with its own memory must not meet them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::ops::Range;

use plimsoll_cache::Storage;
use plimsoll_cache::storage::{Mapping, PageCache};
use support::{Folder, MIB, cache, verify};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// Runs a function in a forked child and returns how that ended: its answer, or the signal.
fn in_a_child(run: impl FnOnce() -> bool) -> Result<bool, i32> {
    // SAFETY: glibc makes its allocator usable in the child, and that is all the children here use
    // besides system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let right = run();
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(!right)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFSIGNALED(status) {
        Err(libc::WTERMSIG(status))
    } else {
        Ok(libc::WEXITSTATUS(status) == 0)
    }
}

/// The tests here look at this process's memory and fork, so they take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn overlap<T>(one: &Range<*const T>, other: &Range<*const T>) -> bool {
    one.start < other.end && other.start < one.end
}

#[test]
fn a_forked_child_keeps_its_own_memory_apart_from_the_weights() {
    let _turn = turn();
    let folder = Folder::new();
    let models = ["a", "b"].map(|name| folder.model(name, 36 * MIB));
    let (cache, _) = cache(|builder| builder.ram(80 * MIB));
    let lease = cache.lease(&models).unwrap();
    let tensors: Vec<_> = models
        .iter()
        .flat_map(|model| {
            let weights = lease.get(model).unwrap();
            let names = weights.tensors().iter().map(|tensor| tensor.name.clone());
            names
                .map(|name| weights.tensor(&name).unwrap())
                .collect::<Vec<_>>()
        })
        .collect();
    let weights: Vec<Range<*const u8>> = models
        .iter()
        .flat_map(|model| {
            let weights = lease.get(model).unwrap();
            let names = weights.tensors().iter().map(|tensor| tensor.name.clone());
            names
                .map(|name| weights.bytes(&name).unwrap().as_ptr_range())
                .collect::<Vec<_>>()
        })
        .collect();

    let leaked_cache = cache.clone();
    let apart = in_a_child(move || {
        let mut own: Vec<Vec<u8>> = Vec::new();
        // Blocks beyond 32 MiB always get a mapping of their own from glibc.
        for size in [33, 34, 35, 36, 40].map(|mib| (mib * MIB) as usize) {
            own.push(vec![0x5a; size]);
            own.push(vec![0x5a; size + 4096]);
        }
        let apart = own.iter().all(|block| {
            let block = block.as_ptr_range();
            weights.iter().all(|weights| !overlap(&block, weights))
        });
        // All of it is torn down in the child too.
        drop(tensors);
        drop(lease);
        leaked_cache.clear();
        drop(leaked_cache);
        apart && own.iter().all(|block| *block == vec![0x5a; block.len()])
    });
    assert_eq!(apart, Ok(true));
    let again = cache.lease(&models).unwrap();
    models.iter().for_each(|model| verify(&again, model));
}

#[test]
fn a_living_child_does_not_turn_recycled_pages_into_copies() {
    let _turn = turn();
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 16 * MIB));
    let (cache, _) = cache(|builder| builder.ram(20 * MIB));
    drop(cache.lease([&a]).unwrap());
    // SAFETY: the child does nothing but wait to be killed.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: no arguments.
            unsafe { libc::pause() };
        }
    }
    let before = minor_faults();
    let lease = cache.lease([&b]).unwrap();
    let faults = minor_faults() - before;
    verify(&lease, &b);
    // SAFETY: the child made above.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    assert!(
        faults < 16 * MIB / 4096 / 2,
        "{faults} faults: pages were copied"
    );
}

fn minor_faults() -> u64 {
    // SAFETY: zeros are a valid value of these numbers.
    let mut usage = unsafe { std::mem::zeroed() };
    // SAFETY: fills the struct.
    let code = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    assert_eq!(code, 0);
    usage.ru_minflt as u64
}

#[test]
fn a_child_drops_a_cache_without_waiting_for_threads_that_it_has_not() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", MIB);
    let (cache, _) = cache(|builder| {
        builder
            .ram(plimsoll_cache::Budget::auto())
            .keep_alive(std::time::Duration::from_secs(3600))
    });
    let lease = cache.lease([&model]).unwrap();
    let shared = std::mem::ManuallyDrop::new((cache, lease));
    let dropped = in_a_child(|| {
        // SAFETY: in the child these are the only handles, and they are not used again.
        drop(unsafe { std::ptr::read(&*shared) });
        true
    });
    assert_eq!(dropped, Ok(true));
    let (cache, lease) = std::mem::ManuallyDrop::into_inner(shared);
    verify(&lease, &model);
    drop(lease);
    verify(&cache.lease([&model]).unwrap(), &model);
}

#[test]
fn a_child_that_drops_mapped_weights_leaves_the_parents_as_they_are() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 8 * MIB);
    let mapping = Mapping {
        guard: true,
        page_cache: PageCache::Drop,
        anywhere: true,
        ..Mapping::default()
    };
    let (cache, _) = cache(|builder| {
        let builder = builder.ram(16 * MIB).mapping(mapping);
        builder.storage(Storage::Mapped)
    });
    let lease = cache.lease([&model]).unwrap();
    let tensor = lease.get(&model).unwrap().tensor("t000").unwrap();
    let shared = std::mem::ManuallyDrop::new((cache, lease, tensor));
    let dropped = in_a_child(|| {
        // SAFETY: in the child these are the only handles, and they are not used again.
        drop(unsafe { std::ptr::read(&*shared) });
        true
    });
    assert_eq!(dropped, Ok(true));
    let (cache, lease, tensor) = std::mem::ManuallyDrop::into_inner(shared);
    verify(&lease, &model);
    lease.check().unwrap();
    drop((lease, tensor));
    cache.clear();
    assert_eq!(cache.usage().used_bytes, 0);
}
