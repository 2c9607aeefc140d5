//! What there is to attach to: what publishes, and the processes with most memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use malloc_stats::inspect::{Status, Target, Users};
use malloc_stats::limits::Tightest;
use malloc_stats::{Limits, Metric};
use plimsoll_events::{Published, published};
use rustix::process::geteuid;

/// Processes with less resident memory are not worth looking at, bytes; what publishes is.
const LEAST: u64 = 64 << 20;

/// Processes that do not publish are listed at most so many.
const MOST: usize = 200;

/// Something to attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number. What publishes from another PID namespace has its own number here.
    pub pid: u32,
    /// Its short name (`comm`), control characters and all; empty where it cannot be seen.
    pub name: String,
    /// The name of its user, or the number where there is no name.
    pub user: String,
    /// All that is resident.
    pub rss: Metric,
    /// The limit that leaves least, and what it leaves, bytes.
    pub nearest: Option<Tightest>,
    /// Where it publishes, if it does. One that publishes twice is listed twice.
    pub socket: Option<PathBuf>,
}

/// What there is to attach to: what publishes first, then processes of 64 MiB and more that this
/// user has or may read, 200 at most; of each the largest first. Heaps are not looked into.
#[must_use]
pub fn candidates() -> Vec<Candidate> {
    let users = Users::read();
    let mut limits = LimitsByCgroup::default();
    let mut found = Vec::new();
    let mut publishers = BTreeSet::new();
    for publication in published() {
        publishers.insert(publication.pid);
        found.push(publisher(publication, &users, &mut limits));
    }
    by_size(&mut found);
    let mut others: Vec<(Target, Status)> = Target::pids()
        .unwrap_or_default()
        .into_iter()
        .filter(|pid| *pid != std::process::id() && !publishers.contains(pid))
        .filter_map(worth_looking_at)
        .collect();
    others.sort_by_key(|(target, status)| (Reverse(status.memory.rss.bytes()), target.pid()));
    others.truncate(MOST);
    found.extend(
        others
            .into_iter()
            .map(|(target, status)| candidate(&target, status, None, &users, &mut limits)),
    );
    found
}

fn by_size(candidates: &mut [Candidate]) {
    candidates.sort_by_key(|candidate| (Reverse(candidate.rss.bytes()), candidate.pid));
}

/// What publishes, with what can be seen of it. Its number may be another's here: then that other
/// one is shown beside the socket, until somebody attaches and the kernel says who is there.
fn publisher(found: Published, users: &Users, limits: &mut LimitsByCgroup) -> Candidate {
    let seen = Target::open(found.pid).ok();
    let seen = seen.and_then(|target| Some((Status::read(&target).ok()?, target)));
    // The sockets that are listed are in folders of this user alone.
    let own = geteuid().as_raw();
    match seen.filter(|(status, _)| status.uid == own) {
        Some((status, target)) => candidate(&target, status, Some(found.path), users, limits),
        None => Candidate {
            pid: found.pid,
            name: String::new(),
            user: users.name_or_number(own),
            rss: Metric::Unavailable,
            nearest: None,
            socket: Some(found.path),
        },
    }
}

fn worth_looking_at(pid: u32) -> Option<(Target, Status)> {
    let target = Target::open(pid).ok()?;
    let status = Status::read(&target).ok()?;
    let large = status.memory.rss.bytes()? >= LEAST;
    let may_look = status.uid == geteuid().as_raw() || target.readable().is_ok();
    (large && may_look).then_some((target, status))
}

fn candidate(
    target: &Target,
    status: Status,
    socket: Option<PathBuf>,
    users: &Users,
    limits: &mut LimitsByCgroup,
) -> Candidate {
    Candidate {
        pid: target.pid(),
        name: status.command,
        user: users.name_or_number(status.uid),
        rss: status.memory.rss,
        nearest: limits.of(target),
        socket,
    }
}

/// All processes of a cgroup have the same limits, and most processes share a few cgroups.
#[derive(Default)]
struct LimitsByCgroup(BTreeMap<Vec<u8>, Option<Tightest>>);

impl LimitsByCgroup {
    fn of(&mut self, target: &Target) -> Option<Tightest> {
        let cgroup = target.bytes("cgroup").ok()?;
        let read = || Limits::of_process(target.pid()).tightest();
        self.0.entry(cgroup).or_insert_with(read).clone()
    }
}
