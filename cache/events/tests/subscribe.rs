//! Subscriptions: telling never waits, gaps are exact and in their place, and the end is told.

#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_events::{Event, Kind, Received, RecvError, Sink, Stream, Subscription};

fn note(text: impl ToString) -> Kind {
    Kind::Note {
        text: text.to_string(),
    }
}

fn emit(stream: &Stream, count: usize) {
    for n in 0..count {
        stream.emit(note(n));
    }
}

/// Everything that can be received now: numbers of events, and sizes of gaps, negative.
fn received(subscription: &Subscription) -> Vec<i64> {
    let mut all = Vec::new();
    loop {
        match subscription.try_recv() {
            Ok(Received::Event(event)) => all.push(event.seq as i64),
            Ok(Received::Dropped(count)) => all.push(-(count as i64)),
            Err(_) => return all,
        }
    }
}

/// Keeps the numbers that it is told.
#[derive(Default)]
struct Numbers(Mutex<Vec<u64>>);

impl Sink for Numbers {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.seq);
    }
}

#[test]
fn who_never_reads_keeps_the_first_events_and_an_exact_count_of_the_rest() {
    let numbers = Arc::new(Numbers::default());
    let stream = Stream::new(Arc::clone(&numbers));
    let idle = stream.subscribe(3);
    let reads = stream.subscribe(1000);
    emit(&stream, 100);
    assert_eq!(*numbers.0.lock().unwrap(), (0..100).collect::<Vec<_>>());
    assert_eq!(received(&reads), (0..100).collect::<Vec<_>>());
    assert_eq!((reads.dropped(), idle.dropped()), (0, 97));
    assert_eq!(received(&idle), [0, 1, 2, -97]);
    emit(&stream, 1);
    assert_eq!(received(&idle), [100]);
    assert_eq!(idle.dropped(), 97);
}

#[test]
fn every_gap_is_told_where_it_is() {
    let stream = Stream::silent();
    let subscription = stream.subscribe(2);
    emit(&stream, 4);
    assert!(matches!(subscription.try_recv(), Ok(Received::Event(event)) if event.seq == 0));
    emit(&stream, 3);
    assert_eq!(subscription.dropped(), 4);
    assert_eq!(received(&subscription), [1, -2, 4, -2]);
    assert_eq!(subscription.try_recv(), Err(RecvError::Empty));
}

#[test]
fn room_for_none_is_room_for_one() {
    let stream = Stream::silent();
    let subscription = stream.subscribe(0);
    emit(&stream, 3);
    assert_eq!(received(&subscription), [0, -2]);
}

#[test]
fn an_event_is_built_once_and_dropped_with_the_last_subscription() {
    let stream = Stream::silent();
    let [a, b] = [stream.subscribe(8), stream.subscribe(8)];
    emit(&stream, 2);
    let (Some(Received::Event(first)), Some(Received::Event(second))) = (a.recv(), b.recv()) else {
        panic!("both are told");
    };
    assert!(Arc::ptr_eq(&first, &second));
    drop(second);
    assert_eq!(Arc::strong_count(&first), 1);
    let Some(Received::Event(waits)) = a.recv() else {
        panic!("both events are told");
    };
    assert_eq!(Arc::strong_count(&waits), 2);
    drop(b);
    assert_eq!(Arc::strong_count(&waits), 1);
}

#[test]
fn dropping_a_subscription_unsubscribes_and_unheard_events_have_no_number() {
    let stream = Stream::silent();
    assert!(!stream.is_heard());
    emit(&stream, 5);
    let first = stream.subscribe(8);
    assert!(stream.is_heard());
    emit(&stream, 2);
    assert_eq!(received(&first), [0, 1]);
    drop(first);
    assert!(!stream.is_heard());
    emit(&stream, 5);
    let second = stream.subscribe(8);
    emit(&stream, 1);
    assert_eq!(received(&second), [2]);
}

#[test]
fn the_end_is_the_last_clone_and_what_was_told_before_is_received() {
    let numbers = Arc::new(Numbers::default());
    let stream = Stream::new(Arc::clone(&numbers));
    let [reads, blocked] = [stream.subscribe(8), stream.subscribe(8)];
    let clone = stream.clone();
    emit(&stream, 2);
    drop(stream);
    assert_eq!(
        reads.recv_timeout(Duration::ZERO).map(|_| ()),
        Ok(()),
        "the first event"
    );
    emit(&clone, 1);
    let heard = std::thread::scope(|scope| {
        let heard = scope.spawn(|| std::iter::from_fn(|| blocked.recv()).count());
        drop(clone);
        heard.join().unwrap()
    });
    assert_eq!(heard, 3);
    // The sink went with the stream, though subscriptions are there.
    assert_eq!(Arc::strong_count(&numbers), 1);
    assert_eq!(received(&reads), [1, 2]);
    assert_eq!(reads.try_recv(), Err(RecvError::Closed));
    assert_eq!(reads.recv_timeout(Duration::MAX), Err(RecvError::Closed));
    assert_eq!(reads.recv(), None);
}

#[test]
fn nothing_in_time_is_not_the_end() {
    let stream = Stream::silent();
    let subscription = stream.subscribe(1);
    let timeout = Duration::from_millis(1);
    assert_eq!(subscription.recv_timeout(timeout), Err(RecvError::Empty));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| subscription.recv_timeout(Duration::MAX));
        emit(&stream, 1);
        assert!(matches!(waits.join().unwrap(), Ok(Received::Event(_))));
    });
}

/// Panics at the event with a number.
struct PanicsAt(u64);

impl Sink for PanicsAt {
    fn event(&self, event: &Event) {
        assert_ne!(event.seq, self.0, "the sink panics");
    }
}

#[test]
fn a_sink_that_panics_takes_no_event_and_no_number_from_others() {
    let stream = Stream::new(PanicsAt(1));
    let subscription = stream.subscribe(8);
    let panics: Vec<bool> = (0..3)
        .map(|_| catch_unwind(AssertUnwindSafe(|| emit(&stream, 1))).is_err())
        .collect();
    assert_eq!(panics, [false, true, false]);
    assert_eq!(received(&subscription), [0, 1, 2]);
}

#[test]
fn from_many_threads_each_number_is_received_or_in_a_gap() {
    const EACH: usize = 5000;
    let numbers = Arc::new(Numbers::default());
    let stream = Stream::new(Arc::clone(&numbers));
    let subscription = stream.subscribe(16);
    let (mut next, mut dropped) = (0, 0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while let Some(received) = subscription.recv() {
                match received {
                    Received::Event(event) => {
                        assert_eq!(event.seq, next, "a gap is told before what follows it");
                        next += 1;
                    }
                    Received::Dropped(count) => {
                        next += count;
                        dropped += count;
                    }
                }
            }
        });
        // Others come and go meanwhile.
        scope.spawn({
            let stream = stream.clone();
            move || (0..200).for_each(|_| drop(stream.subscribe(1)))
        });
        for _ in 0..4 {
            let stream = stream.clone();
            scope.spawn(move || emit(&stream, EACH));
        }
        drop(stream);
        reader.join().unwrap();
    });
    assert_eq!(next, 4 * EACH as u64);
    assert_eq!(subscription.dropped(), dropped);
    assert_eq!(*numbers.0.lock().unwrap(), (0..next).collect::<Vec<_>>());
}
