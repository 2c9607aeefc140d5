//! Files that are cut, replaced, or cannot be read.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use plimsoll_cache::{Cpu, Error, LoadError, LoadObserver, Model};

use crate::support::{Folder, cache, verify};
use crate::{KIB, ROUNDS, SOON, Way, balances, is_whole, lease, on_device, says, settle};

/// Cuts a file as it is about to be read, when told to.
#[derive(Default)]
struct Cuts(AtomicBool);

/// What is left of it.
const LEFT: u64 = 100 * KIB;

impl LoadObserver for Cuts {
    fn before_read(&self, path: &Path, _: u64, _: u64) -> io::Result<()> {
        if self.0.swap(false, Ordering::SeqCst) {
            OpenOptions::new().write(true).open(path)?.set_len(LEFT)?;
        }
        Ok(())
    }
}

#[test]
fn a_file_that_is_cut_while_it_is_read() {
    let cuts = Arc::new(Cuts::default());
    for way in Way::ALL {
        let folder = Folder::new();
        let b = folder.model("b", 330 * KIB);
        let observer = Arc::clone(&cuts) as Arc<dyn LoadObserver>;
        let (cache, device, _) = on_device(way, |builder| builder.observer(observer));
        for round in 0..ROUNDS {
            let path = folder.file("a", 310 * KIB + round as u64);
            let a = Model::open(&path).unwrap();
            cuts.0.store(true, Ordering::SeqCst);
            let error = lease(&cache, a.on(&*device), &a).unwrap_err();
            says(
                &error,
                &["a.safetensors ends at byte 102400", "bytes early"],
            );
            balances(&cache);
            let whole = folder.model("a", 310 * KIB + round as u64);
            is_whole(&cache, Some(&device), &[&whole, &b]);
            cache.clear();
        }
    }
}

#[test]
fn a_file_that_was_replaced_or_cut_since_it_was_opened() {
    let folder = Folder::new();
    let elsewhere = Folder::new();
    let (cache, kept) = cache(|builder| builder.ram(4096 * KIB));
    for round in 0..ROUNDS as u64 {
        let old = folder.model("a", 200 * KIB + round);
        let held = cache.lease([&old]).unwrap();
        if round % 2 == 0 {
            let other = elsewhere.file("a", 260 * KIB + round);
            std::fs::rename(other, old.path()).unwrap();
        } else {
            let file = OpenOptions::new().write(true).open(old.path()).unwrap();
            file.set_len(LEFT).unwrap();
        }
        let now = std::fs::metadata(old.path()).unwrap().len();
        verify(&held, &old);
        // Whoever comes while it is there gets the same.
        lease(&cache, old.on(Cpu), &old).unwrap();
        if round % 2 == 0 {
            // The file as it is now is another model, beside it.
            let new = Model::open(old.path()).unwrap();
            lease(&cache, new.on(Cpu), &new).unwrap();
            verify(&held, &old);
        }
        drop(held);
        assert!(cache.evict(&old));
        let error = lease(&cache, old.on(Cpu), &old).unwrap_err();
        let was = old.files()[0].identity.size;
        says(
            &error,
            &[
                "a.safetensors",
                &was.to_string(),
                &now.to_string(),
                "open the model again",
            ],
        );
        balances(&cache);
        is_whole(&cache, None, &[&folder.model("a", 200 * KIB)]);
        cache.clear();
    }
    let failed = kept
        .kinds()
        .into_iter()
        .filter(|kind| matches!(kind, plimsoll_events::Kind::Load(load) if load.error.is_some()));
    assert_eq!(failed.count(), ROUNDS, "each is told");
}

/// Fails every so many reads.
struct Failing {
    every: u64,
    reads: AtomicU64,
}

impl Failing {
    fn new(every: u64) -> Arc<Failing> {
        Arc::new(Failing {
            every,
            reads: AtomicU64::new(0),
        })
    }
}

impl LoadObserver for Failing {
    fn before_read(&self, _: &Path, _: u64, _: u64) -> io::Result<()> {
        let number = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
        if number.is_multiple_of(self.every) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }
}

fn is_of_reading(error: &Error) {
    says(
        error,
        &["cannot read", ".safetensors at byte", "os error 5"],
    );
    assert!(matches!(error, Error::Load(load) if matches!(**load, LoadError::Read { .. })));
}

#[test]
fn reads_that_fail_again_and_again() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 220 * KIB), folder.model("b", 230 * KIB));
    let observer = Failing::new(3);
    let watches = Arc::clone(&observer) as Arc<dyn LoadObserver>;
    let (cache, _) = cache(|builder| builder.ram(4096 * KIB).observer(watches));
    let mut failures = 0;
    for _ in 0..ROUNDS {
        for one in [&a, &b] {
            if let Err(error) = lease(&cache, one.on(Cpu), one) {
                is_of_reading(&error);
                failures += 1;
                balances(&cache);
                lease(&cache, one.on(Cpu), one).unwrap();
            }
        }
        assert_eq!(cache.clear().leased, []);
        assert_eq!(cache.usage().used_bytes, 0);
    }
    assert_eq!(failures, observer.reads.load(Ordering::SeqCst) / 3);
}

#[test]
fn reads_that_fail_while_a_device_is_loaded() {
    for way in Way::ALL {
        let folder = Folder::new();
        let (a, b) = (folder.model("a", 310 * KIB), folder.model("b", 330 * KIB));
        let observer = Failing::new(7);
        let (cache, device, _) = on_device(way, |builder| builder.observer(observer));
        let (mut failures, mut successes) = (0, 0);
        while failures < ROUNDS {
            for one in [&a, &b] {
                match lease(&cache, one.on(&*device), one) {
                    Ok(()) => successes += 1,
                    Err(error) => {
                        is_of_reading(&error);
                        failures += 1;
                    }
                }
                balances(&cache);
            }
            assert_eq!(cache.clear().leased, []);
            assert_eq!(cache.usage().used_bytes, 0);
            assert_eq!(cache.usage_of(&*device).unwrap().used_bytes, 0);
        }
        assert!(successes > 0);
    }
}

#[test]
fn reads_that_never_succeed_are_an_error_at_once() {
    for way in Way::ALL {
        let folder = Folder::new();
        let (a, b) = (folder.model("a", 310 * KIB), folder.model("b", 330 * KIB));
        let observer = Failing::new(1);
        let watches = Arc::clone(&observer) as Arc<dyn LoadObserver>;
        let (cache, device, _) = on_device(way, |builder| builder.observer(watches));
        for round in 0..ROUNDS as u64 {
            let wanted = [a.on(&*device), b.on(&*device)];
            let error = cache.lease_timeout(wanted, SOON).unwrap_err();
            is_of_reading(&error);
            assert_eq!(
                observer.reads.load(Ordering::SeqCst),
                round + 1,
                "tried once"
            );
            settle(&cache);
            balances(&cache);
        }
    }
}
