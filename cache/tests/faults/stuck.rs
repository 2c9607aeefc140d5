//! Transfers that do not go on.

use std::time::{Duration, Instant};

use plimsoll_cache::Error;
use plimsoll_cache::device::{Device, Fault};

use crate::support::{Folder, verify};
use crate::{KIB, ROUNDS, SOON, Way, balances, is_whole, lease, on_device, says, settle};

#[test]
fn a_transfer_that_is_stuck_holds_up_nobody_else() {
    for way in Way::ALL {
        let folder = Folder::new();
        let (a, b) = (folder.model("a", 310 * KIB), folder.model("b", 330 * KIB));
        let (cache, device, _) = on_device(way, |builder| builder);
        for _ in 0..ROUNDS {
            device.inject(Fault::Stuck);
            let started = Instant::now();
            // A load that has not begun when its lease gives up is not begun.
            while device.stuck() == 0 {
                let error = cache
                    .lease_timeout([a.on(&*device)], Duration::from_millis(5))
                    .unwrap_err();
                assert!(matches!(error, Error::Timeout { .. }), "{error}");
                says(&error, &["`a`", "simulated"]);
                assert!(started.elapsed() < SOON, "it never got to the transfer");
            }
            lease(&cache, b.on(&*device), &b).unwrap();
            let usage = cache.usage_of(&*device).unwrap();
            let counted = device.charge(&a) + device.charge(&b);
            assert_eq!(usage.used_bytes, counted, "what is stuck counts");
            assert_eq!(usage.pinned_bytes, device.charge(&a));
            device.unstick();
            // It joins the load that was stuck.
            let joined = cache.lease_timeout([a.on(&*device)], SOON).unwrap();
            verify(&joined, &a);
            drop(joined);
            settle(&cache);
            balances(&cache);
            is_whole(&cache, Some(&device), &[&a, &b]);
            cache.clear();
        }
    }
}

#[test]
fn a_model_that_is_dropped_while_its_transfer_is_stuck_goes_when_it_ends() {
    for way in Way::ALL {
        let folder = Folder::new();
        let a = folder.model("a", 310 * KIB);
        let (cache, device, _) = on_device(way, |builder| builder);
        for _ in 0..ROUNDS {
            device.inject(Fault::Stuck);
            let started = Instant::now();
            // A load that has not begun when its lease gives up is not begun.
            while device.stuck() == 0 {
                let given_up = cache.lease_timeout([a.on(&*device)], Duration::from_millis(5));
                assert!(matches!(given_up, Err(Error::Timeout { .. })));
                assert!(started.elapsed() < SOON, "it never got to the transfer");
            }
            assert!(!cache.drop_model(&a), "it is being loaded");
            // Fresh bytes, beside those that are stuck.
            lease(&cache, a.on(&*device), &a).unwrap();
            device.unstick();
            while cache.usage_of(&*device).unwrap().used_bytes > device.charge(&a) {
                assert!(started.elapsed() < SOON, "what was dropped stays");
                std::thread::yield_now();
            }
            settle(&cache);
            balances(&cache);
            is_whole(&cache, Some(&device), &[&a]);
            cache.clear();
        }
    }
}
