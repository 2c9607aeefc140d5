//! Which of the kernel's checks keeps the memory of a process from being read.
//!
//! The kernel says no more than `EACCES`, so the checks are gone through in its order
//! (`__ptrace_may_access`, kernel/ptrace.c): users and groups, dumpable, then the security modules:
//! capabilities, Yama, and others. Yama minds only who would *attach*, which reading memory is and
//! reading `maps` is not.

use rustix::fs::AtFlags;

use super::refusal::{Barrier, Denial};
use super::target::{Target, field};

/// The bit of `CAP_SYS_PTRACE` (linux/capability.h).
const CAP_SYS_PTRACE: u64 = 1 << 19;

/// What of a process decides who may read it: from `/proc/PID/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Credentials {
    /// Real, effective and saved user.
    users: [u32; 3],
    /// Real, effective and saved group.
    groups: [u32; 3],
    permitted: u64,
    effective: u64,
    bounding: u64,
}

impl Credentials {
    fn parse(status: &str) -> Self {
        let ids = |name| {
            let mut ids = [u32::MAX; 3];
            let text = field(status, name).unwrap_or_default();
            for (id, text) in ids.iter_mut().zip(text.split_ascii_whitespace()) {
                *id = text.parse().unwrap_or(u32::MAX);
            }
            ids
        };
        let set = |name| {
            let digits = field(status, name).unwrap_or_default();
            u64::from_str_radix(digits, 16).unwrap_or(0)
        };
        Self {
            users: ids("Uid"),
            groups: ids("Gid"),
            permitted: set("CapPrm"),
            effective: set("CapEff"),
            bounding: set("CapBnd"),
        }
    }
}

/// All that the checks go by.
#[derive(Debug, Clone, Default)]
struct Evidence {
    ours: Credentials,
    theirs: Credentials,
    /// Whether the kernel shows its files as its own, which it does for dumpable ones.
    dumpable: bool,
    /// Whether `maps` can be read, which no module forbids that forbids only to attach.
    maps_readable: bool,
    /// `kernel.yama.ptrace_scope`; 0 also where there is no Yama.
    yama: u8,
    other_user_namespace: bool,
    label: Option<String>,
}

impl Evidence {
    fn gather(target: &Target) -> Self {
        let theirs = Credentials::parse(&target.text("status").unwrap_or_default());
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        // The owner of the files is root where a process is not dumpable (proc_pid_status(5)).
        let owner = rustix::fs::statat(target.directory(), "stat", AtFlags::empty());
        Self {
            // The kernel asks for those of the thread.
            ours: Credentials::parse(&read("/proc/thread-self/status")),
            dumpable: owner.is_ok_and(|stat| theirs.users.get(1) == Some(&stat.st_uid)),
            theirs,
            maps_readable: target.file("maps").is_ok(),
            yama: read("/proc/sys/kernel/yama/ptrace_scope")
                .trim()
                .parse()
                .unwrap_or(0),
            // The link `ns/user` needs the very permission that is missing; this file none.
            other_user_namespace: target
                .text("uid_map")
                .is_ok_and(|map| map != read("/proc/self/uid_map")),
            label: target
                .text("attr/current")
                .ok()
                .map(|label| label.trim_end_matches(['\n', '\0']).to_owned())
                .filter(|label| !label.is_empty() && label != "unconfined"),
        }
    }

    fn barrier(&self) -> Barrier {
        let (ours, theirs) = (&self.ours, &self.theirs);
        let powerful = ours.effective & CAP_SYS_PTRACE != 0;
        if !powerful {
            let [_, user, _] = ours.users;
            let [_, group, _] = ours.groups;
            let [_, owner, _] = theirs.users;
            if let Some(other) = theirs.users.iter().find(|id| **id != user) {
                let theirs = if owner == user { *other } else { owner };
                return Barrier::OtherUser { theirs, ours: user };
            }
            if let Some(other) = theirs.groups.iter().find(|id| **id != group) {
                return Barrier::OtherGroup {
                    theirs: *other,
                    ours: group,
                };
            }
            if !self.dumpable {
                return Barrier::NotDumpable;
            }
        }
        if self.maps_readable && self.yama > 0 && (!powerful || self.yama > 2) {
            return Barrier::Yama(self.yama.min(3));
        }
        if self.other_user_namespace {
            return Barrier::UserNamespace;
        }
        if !powerful && theirs.permitted & !ours.effective != 0 {
            return Barrier::Capabilities;
        }
        Barrier::Policy(self.label.clone())
    }
}

/// Why the memory of `target` could not be opened.
pub(super) fn diagnose(target: &Target) -> Denial {
    let evidence = Evidence::gather(target);
    Denial {
        pid: target.pid(),
        why: evidence.barrier(),
        root_can: evidence.ours.bounding & CAP_SYS_PTRACE != 0,
    }
}

impl Denial {
    /// Before anything was tried.
    pub(super) const fn unknown(pid: u32) -> Self {
        Self {
            pid,
            why: Barrier::Policy(None),
            root_can: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process of the same user that is dumpable, seen without any capability.
    fn evidence() -> Evidence {
        let status = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nCapBnd:\t00000000000fffff\n";
        Evidence {
            ours: Credentials::parse(status),
            theirs: Credentials::parse(status),
            dumpable: true,
            maps_readable: true,
            ..Evidence::default()
        }
    }

    #[test]
    fn the_first_check_that_fails_is_named() {
        let mut seen = evidence();
        assert_eq!(seen.barrier(), Barrier::Policy(None));
        seen.yama = 1;
        assert_eq!(seen.barrier(), Barrier::Yama(1));
        seen.maps_readable = false;
        seen.theirs.permitted = CAP_SYS_PTRACE;
        assert_eq!(seen.barrier(), Barrier::Capabilities);
        seen.other_user_namespace = true;
        assert_eq!(seen.barrier(), Barrier::UserNamespace);
        seen.dumpable = false;
        assert_eq!(seen.barrier(), Barrier::NotDumpable);
        seen.theirs.groups = [8, 9, 9];
        let group = Barrier::OtherGroup { theirs: 9, ours: 8 };
        assert_eq!(seen.barrier(), group);
        seen.theirs.users = [7, 0, 0];
        assert_eq!(seen.barrier(), Barrier::OtherUser { theirs: 0, ours: 7 });
    }

    #[test]
    fn who_may_trace_is_stopped_by_no_user_but_by_yama_3() {
        let mut seen = evidence();
        seen.ours.effective = CAP_SYS_PTRACE;
        seen.theirs.users = [0; 3];
        seen.dumpable = false;
        seen.yama = 2;
        seen.label = Some("docker-default (enforce)".to_owned());
        assert_eq!(seen.barrier(), Barrier::Policy(seen.label.clone()));
        seen.yama = 3;
        assert_eq!(seen.barrier(), Barrier::Yama(3));
    }

    #[test]
    fn every_barrier_says_the_way_out() {
        let why = |why, root_can| {
            let pid = 42;
            Denial { pid, why, root_can }.to_string()
        };
        let other = Barrier::OtherUser { theirs: 0, ours: 7 };
        assert_eq!(
            why(other.clone(), true),
            "the memory of process 42 may not be read: it belongs to uid 0, you are uid 7: sudo plimsoll inspect 42"
        );
        assert!(why(other, false).contains("--cap-add SYS_PTRACE"));
        assert!(why(Barrier::Yama(1), true).contains("sysctl kernel.yama.ptrace_scope=0"));
        assert!(!why(Barrier::Yama(3), true).contains("sudo"));
        assert!(why(Barrier::Policy(Some("a\u{1b}[2J".to_owned())), true).contains(r"\u{1b}"));
    }
}
