//! Looks at a process that allocates and frees on two threads at full speed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use malloc_stats::heap::Torn;
use malloc_stats::inspect::{Ask, Inspection, Target, inspect};

use crate::glibcs;

const LOOKS: u64 = 50;

/// Ends when its pipe of commands does, and this is dropped.
struct Restless(Child);

impl Restless {
    fn start() -> Option<Self> {
        let mut command = glibcs::allocating()?;
        command
            .arg("2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut ready = String::new();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        answers.read_line(&mut ready).unwrap();
        assert_eq!(ready, "READY\n");
        Some(Self(child))
    }

    fn looks(&self, pause: bool) -> Vec<Inspection> {
        let target = Target::open(self.0.id()).unwrap();
        let ask = Ask {
            pause,
            surroundings: false,
            ..Ask::default()
        };
        let look = |_| inspect(&target, &ask).unwrap();
        (0..LOOKS).map(look).collect()
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn torn(inspection: &Inspection) -> &Torn {
    &inspection.heap.as_ref().unwrap().torn
}

#[test]
fn without_a_pause_nearly_every_stretch_is_whole_and_none_is_called_corrupt() {
    let Some(restless) = Restless::start() else {
        return;
    };
    let looks = restless.looks(false);
    let segments: u64 = looks.iter().map(|look| torn(look).segments).sum();
    let unresolved: u64 = looks.iter().map(|look| torn(look).unresolved).sum();
    let reread: u64 = looks.iter().map(|look| torn(look).reread).sum();
    eprintln!(
        "{LOOKS} looks, {segments} stretches: {unresolved} unresolved, chunks reread {reread} times"
    );
    assert!(segments >= LOOKS);
    assert!(unresolved * 20 <= segments, "{unresolved} of {segments}");
    for look in &looks {
        let faults = &torn(look).faults;
        assert!(faults.iter().all(|fault| !fault.stable), "{faults:?}");
        let in_use = look.heap.as_ref().unwrap().totals.in_use;
        assert_ne!(in_use.grade(), malloc_stats::Grade::Exact);
    }
}

#[test]
fn with_a_pause_every_look_is_whole_or_said_to_be_midway() {
    let Some(restless) = Restless::start() else {
        return;
    };
    let looks = restless.looks(true);
    let midway = |look: &&Inspection| {
        let notes = &look.notes;
        notes
            .iter()
            .any(|note| note.contains("in the middle of an operation"))
    };
    let mut stopped: Vec<u64> = looks.iter().filter_map(|look| look.paused_us).collect();
    assert_eq!(stopped.len() as u64, LOOKS, "each says for how long");
    stopped.sort_unstable();
    eprintln!(
        "{LOOKS} looks: {} midway; stopped for {} µs at the median, {} at most",
        looks.iter().filter(midway).count(),
        stopped[stopped.len() / 2],
        stopped[stopped.len() - 1]
    );
    for look in looks.iter().filter(|look| !midway(look)) {
        let torn = torn(look);
        assert_eq!((torn.unresolved, torn.disagreed), (0, 0), "{torn:?}");
    }
}
