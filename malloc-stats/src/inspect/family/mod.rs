//! A process and all its descendants, followed from outside.

mod kernel;
mod lineage;
mod member;
mod reading;
mod stat;

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use self::lineage::{Forks, Lineage, Listed};
use self::member::{Means, Member, State, is_gone, started};
use self::reading::Departed;
pub use self::reading::{Ended, FamilyReading, MemberReading};
use super::looker::thread_time;
use super::refusal::TargetError;
use super::target::{directory, field};
use crate::process::rss_grade;
use crate::reader::now_us;

/// The most that are followed at a time. Those beyond are not, and that is told.
const MOST_MEMBERS: usize = 4096;

/// After so long all lists of children are read again, even where nothing seems to have been
/// forked: a list may lack some while others of it end.
const LONGEST_TRUST: Duration = Duration::from_secs(1);

/// A process and all its descendants, followed from outside; to be kept, and read on a clock.
///
/// Members are found by the kernel's lists of the children of each thread
/// (`/proc/PID/task/TID/children`), or where there are none (`CONFIG_PROC_CHILDREN`) by the parents
/// of all processes. Once found a member stays one, whoever becomes its parent. A process that
/// comes and goes between two readings is not met; nor is, below a [process that is
/// itself a member](Self::of), one whose parent ended before either was met: see
/// [`below`](Self::below). No permission is needed.
///
/// # What it costs
///
/// Of the processor, on Linux 6.18, about 15 µs a reading with one member and 1 ms with 50, where
/// nothing was forked since the one before. Beyond 64 members it is 30 µs for each, since their
/// files are opened anew. After a fork anywhere in the system (and once a second) all lists of
/// children are read again, which adds 5 µs with one member, and 1.3 ms where it has 200 threads:
/// 6 µs for each thread of one that has several, and 2 µs for each other member. So a caller paces
/// readings by [`FamilyReading::cost`]. Meeting a member takes about 50 µs.
///
/// Of up to 64 members three files each stay open. At most 4096 members are followed.
#[derive(Debug)]
pub struct Family {
    /// Whose descendants are followed though it is no member: its number, and when it started.
    above: Option<(u32, u64)>,
    members: BTreeMap<u32, Member>,
    /// Those that have ended and are still listed, by when they started; and the walk that met
    /// them last.
    zombies: BTreeMap<u32, (u64, u64)>,
    /// Whose descent is not followed, by when they started.
    excluded: BTreeMap<u32, u64>,
    departed: Departed,
    began: Vec<(u32, String)>,
    ended: Vec<(u32, String)>,
    lineage: Lineage,
    forks: Forks,
    /// The newest number there was before the last walk.
    newest: Option<u64>,
    walked: Option<Instant>,
    /// Nothing happened since the last walk that can have hidden a child from it.
    settled: bool,
    turn: u64,
    truncated: bool,
    means: Means,
    /// What was spent since the last reading.
    spent: Duration,
}

impl Family {
    /// A process, and everything below it. It may have ended, so long as its parent has not waited
    /// for it.
    ///
    /// # Errors
    ///
    /// There is no such process, it is a thread, or `/proc` cannot be read.
    pub fn of(root: u32) -> Result<Self, TargetError> {
        directory(root)?;
        let status = std::fs::read(format!("/proc/{root}/status"));
        let status = status.map_err(|error| unread(root, "status", error))?;
        let process = field(&String::from_utf8_lossy(&status), "Tgid")
            .and_then(|process| process.parse().ok());
        if let Some(process) = process.filter(|process| *process != root) {
            return Err(TargetError::Thread { pid: root, process });
        }
        let mut family = Self::new(None);
        family
            .meet(root)
            .map_err(|error| unread(root, "stat", error))?;
        Ok(family)
    }

    /// Everything below a process, without itself. For one that is a child subreaper
    /// (`PR_SET_CHILD_SUBREAPER`), such as the caller: daemons that fork twice become its children,
    /// and are met.
    ///
    /// # Errors
    ///
    /// There is no such process, or `/proc` cannot be read.
    pub fn below(pid: u32) -> Result<Self, TargetError> {
        directory(pid)?;
        let mut family = Self::new(None);
        let started = started(pid, &mut family.means.buffer);
        family.above = Some((pid, started.map_err(|error| unread(pid, "stat", error))?));
        Ok(family)
    }

    fn new(above: Option<(u32, u64)>) -> Self {
        let release = rustix::system::uname();
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        Self {
            above,
            members: BTreeMap::new(),
            zombies: BTreeMap::new(),
            excluded: BTreeMap::new(),
            departed: Departed::default(),
            began: Vec::new(),
            ended: Vec::new(),
            lineage: Lineage::of_kernel(),
            forks: Forks::open(),
            newest: None,
            walked: None,
            settled: false,
            turn: 0,
            truncated: false,
            means: Means {
                buffer: vec![0; 8192],
                grade: rss_grade(&release.release().to_string_lossy()),
                tick_us: 1_000_000 / ticks,
                held: 0,
                at_us: now_us(),
            },
            spent: Duration::ZERO,
        }
    }

    /// Leaves out a process and what is below it from now on: a helper of the caller's own. One
    /// that is a member already stays one, with what was met below it.
    ///
    /// # Errors
    ///
    /// There is no such process, or `/proc` cannot be read.
    pub fn except(&mut self, pid: u32) -> Result<(), TargetError> {
        let started = started(pid, &mut self.means.buffer);
        let started = started.map_err(|error| unread(pid, "stat", error))?;
        self.excluded.insert(pid, started);
        Ok(())
    }

    /// Looks for new members, and at each of them once. [`read`](Self::read) does that too; in
    /// between, this meets more of those that live but briefly.
    pub fn discover(&mut self) {
        let begun = thread_time();
        self.begin();
        self.find_new();
        self.spent += thread_time().saturating_sub(begun);
    }

    /// Looks for new members, and at all. That none is left is no error: the reading has none.
    pub fn read(&mut self) -> FamilyReading {
        let begun = thread_time();
        self.begin();
        self.find_new();
        self.look_at_all();
        let reading = FamilyReading::of(self.members.values(), &self.departed);
        let spent = std::mem::take(&mut self.spent);
        FamilyReading {
            at_us: self.means.at_us,
            began: std::mem::take(&mut self.began),
            ended: std::mem::take(&mut self.ended),
            truncated: self.truncated,
            cost: spent + thread_time().saturating_sub(begun),
            ..reading
        }
    }

    /// The members that ended: the 256 with the largest peaks, the largest first.
    #[must_use]
    pub fn ended(&self) -> &[Ended] {
        &self.departed.largest
    }

    /// How many members have ended.
    #[must_use]
    pub fn ended_count(&self) -> u64 {
        self.departed.count
    }

    fn begin(&mut self) {
        self.turn += 1;
        self.means.at_us = now_us();
    }

    fn look_at_all(&mut self) {
        let (turn, means) = (self.turn, &mut self.means);
        let looked_at = self.members.extract_if(.., |_, member| {
            let threads = member.seen.threads;
            if member.turn != turn {
                member.look(turn, means);
            }
            // Where a thread ends, another one gets its children, which may have been read already.
            self.settled &= member.seen.threads == threads;
            matches!(member.state, State::Zombie | State::Gone)
        });
        for member in looked_at.map(|(_, member)| member).collect::<Vec<_>>() {
            self.lose(member);
        }
    }

    /// A member has ended, and its children have become those of others.
    fn lose(&mut self, member: Member) {
        self.settled = false;
        if member.state == State::Zombie && self.zombies.len() < MOST_MEMBERS {
            let (pid, started) = (member.seen.pid, member.seen.started);
            self.zombies.insert(pid, (started, self.turn));
        }
        note(&mut self.ended, &member);
        self.departed.add(member.into_ended(&mut self.means));
    }

    /// Goes through the children of all, unless there can be no new ones.
    fn find_new(&mut self) {
        let newest = self.forks.newest();
        let trusted = self
            .walked
            .is_some_and(|walked| walked.elapsed() < LONGEST_TRUST);
        if self.settled && trusted && newest.is_some() && newest == self.newest {
            return;
        }
        self.newest = newest;
        self.walked = Some(Instant::now());
        self.settled = true;
        self.truncated = false;
        self.lineage.prepare(&mut self.means.buffer);
        let above = self.above.map(|(pid, _)| pid);
        let mut parents: Vec<u32> = self.members.keys().copied().chain(above).collect();
        let mut children = Vec::new();
        while let Some(parent) = parents.pop() {
            children.clear();
            let list = self.members.get_mut(&parent).and_then(Member::list);
            let buffer = &mut self.means.buffer;
            let listed = self
                .lineage
                .children_of(parent, list, buffer, &mut children);
            self.settled &= listed == Listed::All;
            self.truncated |= listed == Listed::TooMany;
            children.retain(|child| self.is_unknown(*child));
            // A list by number may be that of another process, which got the number meanwhile.
            if children.is_empty() || !self.is_still(parent) {
                continue;
            }
            for child in &children {
                if self.members.len() >= MOST_MEMBERS {
                    self.truncated = true;
                    break;
                }
                match self.meet(*child) {
                    Ok(true) => parents.push(*child),
                    Ok(false) => {}
                    Err(error) => {
                        self.settled = false;
                        self.truncated |= !is_gone(&error);
                    }
                }
            }
        }
        let turn = self.turn;
        self.zombies.retain(|_, (_, met)| *met == turn);
    }

    /// Whether a child is none that was met before, or is to be left out.
    fn is_unknown(&mut self, pid: u32) -> bool {
        if self.members.contains_key(&pid) || self.above.is_some_and(|(above, _)| above == pid) {
            return false;
        }
        let zombie = self.zombies.get(&pid).map(|(started, _)| *started);
        let excluded = self.excluded.get(&pid).copied();
        if zombie.is_none() && excluded.is_none() {
            return true;
        }
        let now = started(pid, &mut self.means.buffer).ok();
        if now.is_some() && now == excluded {
            return false;
        }
        if now.is_some() && now == zombie {
            self.zombies.insert(pid, (now.unwrap_or(0), self.turn));
            return false;
        }
        self.excluded.remove(&pid);
        self.zombies.remove(&pid);
        true
    }

    /// Whether the process with this number is the one that was met by it.
    fn is_still(&mut self, pid: u32) -> bool {
        let above = self.above.filter(|(above, _)| *above == pid);
        let met = match (self.members.get(&pid), above) {
            (Some(member), _) => member.seen.started,
            (None, Some((_, started))) => started,
            (None, None) => return false,
        };
        let is_still = started(pid, &mut self.means.buffer).is_ok_and(|now| now == met);
        self.settled &= is_still;
        is_still
    }

    /// Makes a process a member. Whether it lives.
    fn meet(&mut self, pid: u32) -> io::Result<bool> {
        let member = Member::open(pid, self.turn, &mut self.means)?;
        let lives = member.state != State::Zombie;
        if !lives && self.zombies.len() >= MOST_MEMBERS {
            // It would be met again and again.
            self.truncated = true;
            return Ok(false);
        }
        note(&mut self.began, &member);
        if lives {
            self.members.insert(pid, member);
        } else {
            self.lose(member);
        }
        Ok(lives)
    }
}

/// Notes a member for the next reading, whenever that is taken.
fn note(news: &mut Vec<(u32, String)>, member: &Member) {
    if news.len() < MOST_MEMBERS {
        news.push((member.seen.pid, member.seen.name.clone()));
    }
}

fn unread(pid: u32, file: &'static str, source: io::Error) -> TargetError {
    if is_gone(&source) {
        TargetError::NoSuchProcess { pid }
    } else {
        TargetError::Unreadable { pid, file, source }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// Kernels without lists of children are rare, and none is at hand for a test.
    #[test]
    fn parents_tell_the_same_family_as_lists_of_children() {
        let script = "sleep 1000 & echo; (sleep 1000 & echo $!; wait) & wait";
        let mut shell = Command::new("setsid")
            .args(["sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().take(2).all(|line| line.is_ok()));
        let mut listed = Family::of(shell.id()).unwrap();
        let mut scanned = Family::of(shell.id()).unwrap();
        scanned.lineage = Lineage::Scanned(std::collections::HashMap::new());
        let known = |family: &mut Family| -> Vec<(u32, u64, u32)> {
            let members = family.read().members.into_iter();
            members
                .map(|member| (member.pid, member.started, member.parent))
                .collect()
        };
        let members = known(&mut scanned);
        assert_eq!(members, known(&mut listed));
        assert_eq!(members.len(), 4);
        for (pid, ..) in members {
            let pid = i32::try_from(pid).unwrap();
            // SAFETY: signals the processes that were made above.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        shell.wait().unwrap();
        // The others die in their own time.
        let begun = Instant::now();
        while !known(&mut scanned).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "they live on");
        }
    }
}
