//! Looks at a process that allocates and frees on two threads at full speed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use malloc_stats::heap::{ChunkState, Torn};
use malloc_stats::inspect::{Ask, Inspection, Target, chunks, inspect};

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
        self.look_often(pause, LOOKS)
    }

    fn look_often(&self, pause: bool, often: u64) -> Vec<Inspection> {
        let target = Target::open(self.0.id()).unwrap();
        let ask = Ask {
            pause,
            surroundings: false,
            ..Ask::default()
        };
        let look = |_| inspect(&target, &ask).unwrap();
        (0..often).map(look).collect()
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
fn without_a_pause_nearly_every_stretch_is_whole_and_hardly_any_is_called_corrupt() {
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
    // A thread that is preempted in the middle of an operation leaves the heap as it is then, for as
    // long as that lasts: without a pause it cannot be told from one that is broken.
    let is_corrupt = |look: &&Inspection| torn(look).faults.iter().any(|fault| fault.stable);
    let corrupt: Vec<&Torn> = looks.iter().filter(is_corrupt).map(torn).collect();
    assert!(corrupt.len() as u64 * 10 <= LOOKS, "{corrupt:?}");
    for look in &looks {
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

/// What is seen is of several moments, but one chunk lies behind the other, and nearly all of them
/// are seen.
#[test]
fn chunk_by_chunk_there_is_no_muddle() {
    let Some(restless) = Restless::start() else {
        return;
    };
    let target = Target::open(restless.0.id()).unwrap();
    let looks = restless.look_often(false, 1);
    let heap = looks[0].heap.as_ref().unwrap();
    let (mut in_use, mut walked, mut unfollowed) = (0, 0, 0);
    for _ in 0..10 {
        for arena in &heap.arenas {
            let span = arena.coverage.span().unwrap();
            let seen = chunks(&target, arena.index, span.clone(), usize::MAX).unwrap();
            for pair in seen.chunks.windows(2) {
                let behind = pair[0].address + pair[0].size;
                assert!(behind <= pair[1].address, "{pair:x?}");
            }
            for chunk in &seen.chunks {
                let meets = chunk.address < span.end && span.start < chunk.address + chunk.size;
                assert!(meets && chunk.resident <= chunk.size, "{chunk:x?}");
            }
            let held = |state| matches!(state, ChunkState::InUse | ChunkState::Cached);
            let held = seen.chunks.iter().filter(|chunk| held(chunk.state));
            in_use += held.map(|chunk| chunk.size).sum::<u64>();
            walked += arena.in_use.bytes().unwrap();
            unfollowed += seen.notes.len();
        }
    }
    eprintln!("{in_use} bytes in use chunk by chunk, {walked} by a walk; {unfollowed} notes");
    // It keeps as much all the time, give or take.
    assert!(
        in_use > walked / 2 && in_use < 2 * walked,
        "{in_use} {walked}"
    );
}
