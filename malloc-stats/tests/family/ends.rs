//! What is told of members that end.

use malloc_stats::Metric;
use malloc_stats::inspect::Family;

use crate::memory::touch;
use crate::processes::{Forked, Shell};
use crate::tree::{Tree, member, pids, until};

#[test]
fn what_ended_between_readings_is_told_with_its_peak() {
    const SIZE: usize = 48 << 20;
    let forked = Forked::new(|| {
        let at = touch(SIZE);
        // SAFETY: what was just mapped is in nobody's use.
        unsafe { libc::munmap(at, SIZE) };
    });
    let mut family = Family::of(forked.pid).unwrap();
    let reading = family.read();
    let seen = member(&reading, forked.pid).clone();
    let (peak, rss) = (seen.process.hwm, seen.process.rss);
    assert!(peak.bytes() >= Some(SIZE as u64) && peak.bytes() > rss.bytes());
    // A zombie, then nothing.
    forked.kill();
    let reading = family.read();
    assert_eq!(reading.members, []);
    assert_eq!(reading.ended, [(forked.pid, seen.name.clone())]);
    let ended = &family.ended()[0];
    assert_eq!((ended.pid, ended.started), (forked.pid, seen.started));
    assert_eq!(
        (&ended.name, ended.peak, ended.rss),
        (&seen.name, peak, rss)
    );
    assert!(ended.minor_faults >= seen.process.minor_faults.max(1));
    assert!(ended.ended_us > ended.began_us);
    assert_eq!(reading.total.minor_faults, ended.minor_faults);
    assert_eq!(reading.total.rss, Metric::Unavailable);
    drop(forked);
    let reading = family.read();
    assert_eq!((reading.members.len(), reading.ended.len()), (0, 0));
    assert_eq!(family.ended_count(), 1);
}

#[test]
fn one_that_is_waited_for_at_once_is_told_as_it_was_seen_last() {
    let mut shell = Shell::new("read line");
    let mut family = Family::of(shell.0.id()).unwrap();
    let seen = family.read().members.remove(0);
    shell.go_on();
    shell.0.wait().unwrap();
    let reading = family.read();
    assert_eq!(reading.members, []);
    assert_eq!(reading.ended, [(seen.pid, seen.name)]);
    assert_eq!(family.ended()[0].peak, seen.process.hwm);
    assert_eq!(reading.total.minor_faults, seen.process.minor_faults);
    assert_eq!(reading.cpu_us, seen.cpu_us);
}

#[test]
fn one_that_has_ended_before_it_is_met_has_no_memory_and_ends_once() {
    let forked = Forked::new(|| {});
    forked.kill();
    let mut family = Family::of(forked.pid).unwrap();
    let reading = family.read();
    assert_eq!((reading.members.len(), reading.began.len()), (0, 1));
    assert_eq!(reading.ended, reading.began);
    let ended = &family.ended()[0];
    assert_eq!(
        (ended.peak, ended.rss),
        (Metric::Unavailable, Metric::Unavailable)
    );
    assert!(ended.minor_faults > 0);
}

#[test]
fn a_zombie_below_a_member_is_met_once_and_ends_once() {
    let parent = Forked::new(|| {
        // SAFETY: the child makes one system call, and its end is waited for without taking it.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit(0);
            }
            let mut info = std::mem::zeroed();
            let options = libc::WEXITED | libc::WNOWAIT;
            let child = child.cast_unsigned();
            libc::waitid(libc::P_PID, child, &raw mut info, options);
        }
    });
    let mut family = Family::of(parent.pid).unwrap();
    let reading = family.read();
    assert_eq!((reading.began.len(), reading.ended.len()), (2, 1));
    assert_eq!(pids(&reading), [parent.pid]);
    for _ in 0..3 {
        let reading = family.read();
        assert_eq!((reading.began, reading.ended), (Vec::new(), Vec::new()));
        assert_eq!(family.ended_count(), 1);
    }
}

#[test]
fn a_storm_of_short_lived_children_is_followed_as_far_as_it_goes() {
    let mut shell = Tree::shell(
        "i=0; while [ $i -lt 300 ]; do (:) & i=$((i+1)); done; wait; echo done; read line",
    );
    let mut family = shell.family();
    let (mut began, mut ended) = (0, 0);
    let mut faults = 0;
    let mut count = |reading: &malloc_stats::inspect::FamilyReading| {
        began += reading.began.len();
        ended += reading.ended.len();
        assert_eq!(began - ended, reading.members.len());
        assert!(reading.total.minor_faults >= faults, "they came to less");
        faults = reading.total.minor_faults;
        assert!(!reading.truncated);
    };
    let speaker = std::thread::spawn(move || {
        assert_eq!(shell.line(), "done");
        shell
    });
    while !speaker.is_finished() {
        count(&family.read());
    }
    let shell = speaker.join().unwrap();
    let last = family.read();
    count(&last);
    assert_eq!(pids(&last), [shell.pid()]);
    assert_eq!(family.ended_count(), ended as u64);
    assert!(ended <= 300 && family.ended().len() == ended.min(256));
}

#[test]
fn of_many_that_ended_the_largest_are_kept() {
    const MANY: usize = 300;
    let mut shell = Tree::shell(&format!(
        "i=0; while [ $i -lt {MANY} ]; do sleep 1000 & i=$((i+1)); done; echo ready; read line"
    ));
    assert_eq!(shell.line(), "ready");
    let mut family = shell.family();
    let reading = until(&mut family, |reading| {
        reading
            .members
            .iter()
            .filter(|member| member.name == "sleep")
            .count()
            >= MANY
    });
    assert!(
        reading
            .members
            .iter()
            .all(|member| member.process.rss.bytes().is_some())
    );
    drop(shell);
    let reading = until(&mut family, |reading| reading.members.is_empty());
    assert!(reading.total.minor_faults > 0);
    assert!(family.ended_count() > MANY as u64);
    let peaks: Vec<_> = family
        .ended()
        .iter()
        .map(|ended| ended.peak.bytes())
        .collect();
    assert_eq!(peaks.len(), 256);
    assert!(peaks.is_sorted_by(|one, other| one >= other));
}
