//! Subscribers that never read.

use std::sync::Arc;

use plimsoll_events::{Received, Stream};

use crate::support::{Folder, Kept};
use crate::{KIB, ROUNDS, Way, balances, is_whole, lease, on_device};

#[test]
fn a_subscriber_that_never_reads_holds_up_nobody_and_is_told_what_it_missed() {
    let folder = Folder::new();
    let models = ["a", "b", "c"].map(|name| folder.model(name, 400 * KIB));
    let kept = Arc::new(Kept::default());
    let stream = Stream::new(Arc::clone(&kept));
    let unread = stream.subscribe(16);
    let (cache, device, _) = on_device(Way::Copy, |builder| builder.stream(stream));
    for _ in 0..ROUNDS {
        for one in &models {
            lease(&cache, one.on(&*device), one).unwrap();
        }
        balances(&cache);
        let told = kept.kinds().len() as u64;
        assert_eq!(unread.dropped(), told.saturating_sub(16));
    }
    is_whole(&cache, Some(&device), &[&models[0]]);
    let told = kept.kinds();
    for kind in &told[..16] {
        let Ok(Received::Event(event)) = unread.try_recv() else {
            panic!("16 were kept");
        };
        assert_eq!(event.kind, *kind);
    }
    assert_eq!(
        unread.try_recv(),
        Ok(Received::Dropped(told.len() as u64 - 16))
    );
    assert!(unread.try_recv().is_err(), "nothing came since");
    lease(&cache, models[1].on(&*device), &models[1]).unwrap();
    assert!(
        matches!(unread.try_recv(), Ok(Received::Event(_))),
        "it hears again"
    );
}
