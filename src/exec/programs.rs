//! Which programs a command runs, how much they hold, and whether the profile took in each.
//!
//! To find out whether a profile took costs a thousand readings of memory, and a build runs the same
//! compiler a thousand times. So it is found out once of each program: of one file, started with one
//! choice of the variables that the profile sets.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use malloc_stats::inspect::MemberReading;
use malloc_stats::{Settings, Size};

/// What has run for so long has its allocator in place; if not, it is looked into again.
const IN_PLACE: Duration = Duration::from_millis(20);
/// So often a program is looked into until it is known who serves there.
const MOST_TRIES: u32 = 3;
/// Of so many programs it is found out whether the profile took.
const MOST_PROGRAMS: usize = 64;
/// So many processes are identified at a reading; the others wait for the next.
const MOST_AT_ONCE: usize = 16;
/// A program that never held this part of the most that was resident decides nothing: one in
/// twenty, which is less than what the choice of an allocator moves.
const LEAST_PART: u64 = 20;

/// A program as processes run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Device and inode.
    file: (u64, u64),
    /// Of the values of the profile's variables.
    environment: u64,
}

impl Identity {
    /// What a process runs; `None` where that may not be known.
    pub(crate) fn of(pid: u32, variables: &[String]) -> Option<Identity> {
        let file = rustix::fs::stat(format!("/proc/{pid}/exe")).ok()?;
        let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        Some(Identity {
            file: (file.st_dev, file.st_ino),
            environment: hashed(&environ, variables),
        })
    }
}

fn hashed(environ: &[u8], variables: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for entry in environ.split(|byte| *byte == 0) {
        let name = entry.split(|byte| *byte == b'=').next();
        let is_one = |variable: &String| name == Some(variable.as_bytes());
        if variables.iter().any(is_one) {
            entry.hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// What was found out about a program.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Judgement {
    /// Its name.
    pub(crate) name: String,
    /// Who serves; `None` where that could not be told.
    pub(crate) allocator: Option<String>,
    pub(crate) settings: Settings,
    /// What is not in force, in sentences.
    pub(crate) refused: Vec<String>,
}

/// A program, and the most that all processes that ran it held together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tried {
    pub(crate) most: u64,
    pub(crate) judgement: Judgement,
}

/// Processes by what they run.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    processes: HashMap<(u32, u64), Process>,
    known: Vec<Program>,
}

#[derive(Debug)]
struct Process {
    since: Instant,
    runs: Runs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    NotAsked,
    NobodyKnows,
    Program(usize),
}

#[derive(Debug)]
struct Program {
    identity: Identity,
    most: u64,
    tries: u32,
    judgement: Option<Judgement>,
}

impl Program {
    fn is_open(&self) -> bool {
        let known = self.judgement.as_ref();
        known.is_none_or(|known| known.allocator.is_none()) && self.tries < MOST_TRIES
    }
}

/// A process to be looked into, and the place of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) pid: u32,
    pub(crate) program: usize,
}

fn rss(member: &MemberReading) -> u64 {
    match member.shares_memory {
        true => 0,
        false => member.process.rss.bytes().unwrap_or(0),
    }
}

impl Programs {
    /// Those that live now, in order of their numbers.
    pub(crate) fn meet(&mut self, members: &[MemberReading], now: Instant) {
        self.processes.retain(|(pid, started), _| {
            let at = members.binary_search_by_key(pid, |member| member.pid);
            at.is_ok_and(|at| members[at].started == *started)
        });
        let mut held = vec![0_u64; self.known.len()];
        for member in members {
            let key = (member.pid, member.started);
            let new = Process {
                since: now,
                runs: Runs::NotAsked,
            };
            let process = self.processes.entry(key).or_insert(new);
            if member.executed {
                // Another program has another allocator.
                process.since = now;
                process.runs = Runs::NotAsked;
            }
            if let Runs::Program(at) = process.runs {
                held[at] = held[at].saturating_add(rss(member));
            }
        }
        for (program, held) in self.known.iter_mut().zip(held) {
            program.most = program.most.max(held);
        }
    }

    /// Since when a process runs its program, if for so long that its allocator is in place.
    pub(crate) fn in_place(&self, member: &MemberReading, now: Instant) -> Option<Instant> {
        let process = self.processes.get(&(member.pid, member.started))?;
        let lasted = now.saturating_duration_since(process.since);
        (lasted >= IN_PLACE).then_some(process.since)
    }

    /// Finds out what those run that have run for a while.
    pub(crate) fn identify(
        &mut self,
        members: &[MemberReading],
        now: Instant,
        of: impl Fn(u32) -> Option<Identity>,
    ) {
        let mut left = MOST_AT_ONCE;
        for member in members {
            if left == 0 {
                return;
            }
            if self.in_place(member, now).is_some() && self.runs(member) == Runs::NotAsked {
                left -= 1;
                self.place(member, &of);
            }
        }
    }

    fn runs(&self, member: &MemberReading) -> Runs {
        let process = self.processes.get(&(member.pid, member.started));
        process.map_or(Runs::NobodyKnows, |process| process.runs)
    }

    /// The place of the program that a process runs; `None` where nobody knows.
    pub(crate) fn place(
        &mut self,
        member: &MemberReading,
        of: impl Fn(u32) -> Option<Identity>,
    ) -> Option<usize> {
        let process = self.processes.get_mut(&(member.pid, member.started))?;
        if process.runs == Runs::NotAsked {
            process.runs = match of(member.pid) {
                Some(identity) => {
                    let at = self.known.iter().position(|one| one.identity == identity);
                    if at.is_none() && self.known.len() < MOST_PROGRAMS {
                        self.known.push(Program {
                            identity,
                            most: 0,
                            tries: 0,
                            judgement: None,
                        });
                    }
                    let new = self.known.len() - 1;
                    match at {
                        Some(at) => Runs::Program(at),
                        None if self.known[new].identity == identity => Runs::Program(new),
                        None => Runs::NobodyKnows,
                    }
                }
                None => Runs::NobodyKnows,
            };
        }
        let Runs::Program(at) = process.runs else {
            return None;
        };
        let program = &mut self.known[at];
        program.most = program.most.max(rss(member));
        Some(at)
    }

    /// When the next process is in place that nobody has identified.
    pub(crate) fn next_in_place(&self) -> Option<Instant> {
        let not_asked = self.processes.values();
        let not_asked = not_asked.filter(|process| process.runs == Runs::NotAsked);
        not_asked.map(|process| process.since + IN_PLACE).min()
    }

    /// The largest process of whose program it is not known who serves there, if there is one, and
    /// it was not tried too often.
    pub(crate) fn due(&mut self, members: &[MemberReading]) -> Option<Due> {
        let not_asked = members.iter().filter_map(|member| {
            let Runs::Program(program) = self.runs(member) else {
                return None;
            };
            let due = Due {
                pid: member.pid,
                program,
            };
            self.known[program].is_open().then_some((rss(member), due))
        });
        let (_, due) = not_asked.max_by_key(|(rss, _)| *rss)?;
        self.known[due.program].tries += 1;
        Some(due)
    }

    /// Takes what was found out. What is found out later is better known, unless it is nothing.
    pub(crate) fn judge(&mut self, program: usize, judgement: Judgement) {
        if let Some(program) = self.known.get_mut(program)
            && (judgement.allocator.is_some() || program.is_open())
        {
            program.judgement = Some(judgement);
        }
    }

    /// Those of which something was found out.
    pub(crate) fn into_tried(self) -> Vec<Tried> {
        let judged = self.known.into_iter().filter_map(|program| {
            Some(Tried {
                most: program.most,
                judgement: program.judgement?,
            })
        });
        judged.collect()
    }
}

/// What all of that comes to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct InForce {
    /// Of the program that held most.
    pub(crate) allocator: String,
    pub(crate) settings: Settings,
    /// What is not in force where it matters.
    pub(crate) refused: Vec<String>,
    /// What is not in force where it does not.
    pub(crate) notes: Vec<String>,
}

impl InForce {
    /// Where `peak` is the most that was resident in all processes: a helper that holds next to
    /// nothing of it does not make a measurement one of another profile.
    pub(crate) fn of(tried: Vec<Tried>, peak: u64) -> InForce {
        let matters = |one: &Tried| one.most.saturating_mul(LEAST_PART) >= peak;
        let mut found = InForce::default();
        for one in &tried {
            let Judgement { name, refused, .. } = &one.judgement;
            for what in refused {
                if matters(one) {
                    found.refused.push(format!("{name}: {what}"));
                } else {
                    found.notes.push(format!(
                        "{name}, which never held more than {}: {what}",
                        Size(one.most)
                    ));
                }
            }
        }
        let largest = tried.into_iter().filter(matters).max_by_key(|one| one.most);
        if let Some(largest) = largest {
            found.allocator = largest.judgement.allocator.unwrap_or_default();
            found.settings = largest.judgement.settings;
        }
        found
    }
}

#[cfg(test)]
mod tests;
