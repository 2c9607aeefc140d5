//! Which rule of `ptrace(2)`, "Ptrace access mode checking", forbids.

use rustix::fs::AtFlags;

use super::procfs::{Process, Status};

/// Its bit in `CapEff`.
const CAP_SYS_PTRACE: u64 = 1 << 19;

/// What the rules go by.
#[derive(Debug)]
struct Facts {
    target: Status,
    own: Status,
    /// Who owns the target's directory in `/proc`: root, unless it is dumpable.
    owner: Option<u32>,
    /// `kernel.yama.ptrace_scope`, where there is Yama.
    yama: Option<u32>,
}

pub(super) fn why_denied(process: &Process, target: Status) -> String {
    let owner = rustix::fs::statat(&process.directory, "", AtFlags::EMPTY_PATH);
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    Facts {
        target,
        own: Status::of(std::process::id()).unwrap_or_default(),
        owner: owner.ok().map(|stat| stat.st_uid),
        yama: yama.ok().and_then(|scope| scope.trim().parse().ok()),
    }
    .reason()
}

impl Facts {
    fn reason(&self) -> String {
        if self.yama == Some(3) {
            return "kernel.yama.ptrace_scope is 3, which forbids it to all until the next boot; look without a pause".into();
        }
        if self.own.capabilities & CAP_SYS_PTRACE != 0 {
            return "this program has CAP_SYS_PTRACE here, so the process is in a user namespace outside, is traced from a PID namespace outside, or a security module or seccomp filter forbids it".into();
        }
        let rule = if let Some(difference) = self.other_user() {
            difference
        } else if self.owner == Some(0) && self.target.uids.get(1).is_some_and(|uid| *uid != 0) {
            "it is not dumpable (set-user-ID, file capabilities, or prctl PR_SET_DUMPABLE)".into()
        } else {
            match self.yama {
                Some(1) => "kernel.yama.ptrace_scope is 1, which permits it only to the process's own ancestors".into(),
                Some(2) => "kernel.yama.ptrace_scope is 2, which permits it only with CAP_SYS_PTRACE".into(),
                _ => "it has capabilities that this program lacks, or is in another user namespace, or a security module or seccomp filter forbids it".to_owned(),
            }
        };
        format!("{rule}; run this program with CAP_SYS_PTRACE (as with sudo)")
    }

    /// All three of the target's numbers have to be the real one of ours.
    fn other_user(&self) -> Option<String> {
        let differ = |kind: &str, its: &[u32], ours: &[u32]| {
            let ours = ours.first()?;
            let other = its.iter().find(|id| *id != ours)?;
            Some(format!(
                "it runs as {kind} {other}, and this program as {ours}"
            ))
        };
        differ("user", &self.target.uids, &self.own.uids)
            .or_else(|| differ("group", &self.target.gids, &self.own.gids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let user = || Status {
            uids: vec![1000; 3],
            gids: vec![1000; 3],
            ..Status::default()
        };
        Facts {
            target: user(),
            own: user(),
            owner: Some(1000),
            yama: None,
        }
    }

    #[test]
    fn a_denial_names_the_rule_that_forbids() {
        let plain = facts().reason();
        assert!(
            plain.starts_with("it has capabilities that this program lacks"),
            "{plain}"
        );

        let mut other_user = facts();
        other_user.target.uids = vec![1000, 0, 0];
        let reason = other_user.reason();
        assert!(
            reason.starts_with("it runs as user 0, and this program as 1000;"),
            "{reason}"
        );
        other_user.own.capabilities = CAP_SYS_PTRACE;
        let reason = other_user.reason();
        assert!(
            reason.starts_with("this program has CAP_SYS_PTRACE"),
            "{reason}"
        );

        let mut other_group = facts();
        other_group.target.gids = vec![1000, 7, 1000];
        let reason = other_group.reason();
        assert!(
            reason.starts_with("it runs as group 7, and this program as 1000;"),
            "{reason}"
        );

        let mut private = facts();
        private.owner = Some(0);
        private.yama = Some(1);
        let reason = private.reason();
        assert!(reason.starts_with("it is not dumpable"), "{reason}");

        for scope in 1..=3 {
            let mut yama = facts();
            yama.yama = Some(scope);
            let reason = yama.reason();
            assert!(
                reason.starts_with(&format!("kernel.yama.ptrace_scope is {scope}")),
                "{reason}"
            );
            // No capability helps against the last.
            assert_eq!(
                reason.contains("CAP_SYS_PTRACE (as with sudo)"),
                scope < 3,
                "{reason}"
            );
        }
    }
}
