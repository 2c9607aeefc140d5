//! The line of `/proc/PID/stat`.

use crate::process::decimal;

/// It was forked, and runs the program of its parent still (`PF_FORKNOEXEC`, linux/sched.h).
const FORKED_ONLY: u64 = 0x40;

/// What of the line says how a process does (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Newlines and backslashes in it are escaped by the kernel; nothing else is.
    pub(super) name: &'a [u8],
    state: u8,
    pub(super) parent: u32,
    flags: u64,
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
    /// User and system time in clock ticks; without children.
    pub(super) ticks: u64,
    pub(super) threads: u32,
    /// In clock ticks since the system started.
    pub(super) started: u64,
    /// Where its stack begins, anew for each program; 0 for those who may not know.
    pub(super) stack: u64,
}

impl Line<'_> {
    /// Whether its first thread has ended, which ends the process where it has no other.
    pub(super) fn leader_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    pub(super) fn has_ended(&self) -> bool {
        self.leader_ended() && self.threads <= 1
    }

    pub(super) fn only_forked(&self) -> bool {
        self.flags & FORKED_ONLY != 0
    }
}

/// Takes the line apart; `None` where it is not one. Allocates nothing.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    // The name may hold anything, parentheses too.
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let mut rest = line.get(close + 1..)?.trim_ascii().split(|b| *b == b' ');
    // Some that are passed over are negative.
    let state = *rest.next()?.first()?;
    let parent = decimal(rest.next()?)?;
    let flags = decimal(rest.nth(4)?)?;
    let minor_faults = decimal(rest.next()?)?;
    let major_faults = decimal(rest.nth(1)?)?;
    let user = decimal(rest.nth(1)?)?;
    let system = decimal(rest.next()?)?;
    let threads = decimal(rest.nth(4)?)?;
    let started = decimal(rest.nth(1)?)?;
    let stack = decimal(rest.nth(5)?)?;
    Some(Line {
        name: line.get(open + 1..close)?,
        state,
        parent: u32::try_from(parent).ok()?,
        flags,
        minor_faults,
        major_faults,
        ticks: user.saturating_add(system),
        threads: u32::try_from(threads).unwrap_or(u32::MAX),
        started,
        stack,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REST: &str = "S 41 7 7 34816 -1 4194368 120 9 3 8 50 25 1 1 20 0 6 0 990 5000 200 \
                        18446744073709551615 11 12 13 0 0";

    #[test]
    fn fields_are_those_of_the_manual() {
        let line = format!("42 (a b) {REST}\n");
        let line = parse(line.as_bytes()).unwrap();
        assert_eq!((line.name, line.parent), (b"a b".as_slice(), 41));
        assert_eq!((line.minor_faults, line.major_faults), (120, 3));
        assert_eq!((line.ticks, line.threads), (75, 6));
        assert_eq!((line.started, line.stack), (990, 13));
        assert!(line.only_forked() && !line.leader_ended());
    }

    proptest! {
        #[test]
        fn a_name_forges_nothing(name in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut line = b"42 (".to_vec();
            line.extend(&name);
            line.extend(format!(") {REST}").bytes());
            let line = parse(&line).unwrap();
            prop_assert_eq!(line.name, name.as_slice());
            prop_assert_eq!((line.parent, line.started), (41, 990));
        }

        #[test]
        fn what_is_no_line_is_none_or_some_but_never_a_panic(
            line in "[0-9 ()a-zZ-]{0,200}",
        ) {
            if let Some(found) = parse(line.as_bytes()) {
                prop_assert!(line.len() > found.name.len());
            }
        }
    }
}
