//! Looking at a command and all its processes from outside, on a thread of its own: memory on a
//! clock, heaps as often as costs a hundredth of the time, and at once where the program marks a
//! moment and waits.

mod looks;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use malloc_stats::Snapshot;
use malloc_stats::inspect::{Family, FamilyReading, Looker, MemberReading, Pulse, Target};
use malloc_stats::mark::{Desk, Mark};
use plimsoll_events::Kind;
use plimsoll_profiles::Profile;
use plimsoll_trials::outcome::Member;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

pub(crate) use self::looks::Looks;
use super::gathering::Gathering;
use super::log::Log;
use super::programs::Programs;

/// The first readings come faster, so that what is short is seen at all.
const FIRST: Duration = Duration::from_millis(5);
/// A reading that takes a millisecond is followed by none for so many: half a hundredth.
const REST: u32 = 200;
/// What ends sooner is looked into as soon as it can be: there may be no other time.
const SHORT: Duration = Duration::from_secs(1);
/// A reading for that is followed by none for so many.
const SHORT_REST: u32 = 20;
/// How often limits and VRAM are read, which costs ten times what memory does.
const SURROUNDINGS: Duration = Duration::from_secs(1);

/// What a sampler is to do.
#[derive(Debug)]
pub(crate) struct Sampling {
    pub(crate) pid: u32,
    pub(crate) profile: Profile,
    /// The names of the variables that it sets.
    pub(crate) variables: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) looks: Looks,
    /// A process below this one that is not of the command.
    pub(crate) besides: Option<u32>,
    pub(crate) desk: Desk,
    pub(crate) log: Log,
    pub(crate) gathering: Gathering,
}

/// A sampler at work.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<(Gathering, Log)>,
}

impl Sampler {
    pub(crate) fn begin(sampling: Sampling) -> io::Result<Sampler> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let bell = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("plimsoll-sample".to_owned())
            .spawn(move || Work::new(sampling).run(&bell))?;
        Ok(Sampler { stop, thread })
    }

    /// Ends it; gives what it gathered.
    pub(crate) fn end(self) -> io::Result<(Gathering, Log)> {
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes())?;
        let gathered = self.thread.join();
        gathered.map_err(|_| io::Error::other("the sampling thread panicked"))
    }
}

/// The process whose heap is looked into.
#[derive(Debug)]
struct Heaviest {
    pid: u32,
    /// Since when it runs this program.
    since: Instant,
    program: Option<usize>,
    pulse: Pulse,
    /// To look into, until there was time for it.
    unseen: Option<Arc<Target>>,
}

struct Work {
    sampling: Sampling,
    begun: Instant,
    family: Option<Family>,
    programs: Programs,
    looker: Option<Looker>,
    heaviest: Option<Heaviest>,
    next_surroundings: Instant,
    /// The heap was looked into at a mark: later looks of the looker do not replace that.
    kept_by_mark: bool,
    /// What verifications, and turning to other processes, took of the processor.
    looking: Duration,
    /// Why the last look that failed did.
    trouble: Option<String>,
    latest: Vec<MemberReading>,
}

impl Work {
    fn new(sampling: Sampling) -> Work {
        let now = Instant::now();
        let mut work = Work {
            begun: now,
            family: None,
            programs: Programs::default(),
            looker: None,
            heaviest: None,
            next_surroundings: now,
            kept_by_mark: false,
            looking: Duration::ZERO,
            trouble: None,
            latest: Vec::new(),
            sampling,
        };
        match Family::below(std::process::id()) {
            Ok(mut family) => {
                if let Some(besides) = work.sampling.besides {
                    // Gone already: then there is nothing to leave out.
                    let _ = family.except(besides);
                }
                work.family = Some(family);
            }
            Err(error) => work.note(format!("its processes cannot be followed: {error}")),
        }
        work
    }

    fn run(mut self, stop: &OwnedFd) -> (Gathering, Log) {
        let mut pace = FIRST.min(self.sampling.interval);
        let mut next = Instant::now();
        loop {
            if next <= Instant::now() {
                let begun = Instant::now();
                let cost = self.read();
                pace = (pace * 2).min(self.sampling.interval);
                next = begun + pace.max(cost.saturating_mul(REST));
                if let Some(in_place) = self.programs.next_in_place()
                    && self.begun.elapsed() < SHORT
                {
                    let soonest = begun + cost.saturating_mul(SHORT_REST);
                    next = next.min(in_place.max(soonest));
                }
            }
            let stopped = self.wait(stop, next);
            self.collect();
            for mark in self.sampling.desk.take() {
                self.mark(&mark);
            }
            if stopped {
                break;
            }
        }
        self.end()
    }

    /// Waits for something to do; says whether it is to end.
    fn wait(&self, stop: &OwnedFd, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = vec![
            PollFd::new(stop, PollFlags::IN),
            PollFd::from_borrowed_fd(self.sampling.desk.as_fd(), PollFlags::IN),
        ];
        if let Some(looker) = &self.looker {
            fds.push(PollFd::from_borrowed_fd(looker.bell(), PollFlags::IN));
        }
        // Interrupted, or for want of memory: what there is to do is looked for anyway.
        let _ = poll(&mut fds, Some(&left));
        fds.first().is_some_and(|stop| !stop.revents().is_empty())
    }

    fn note(&mut self, text: String) {
        self.sampling.log.tell(Kind::Note { text: text.clone() });
        self.sampling.gathering.note(text);
    }

    /// Memory of all processes; gives what that cost.
    fn read(&mut self) -> Duration {
        let at = Instant::now();
        let Some(reading) = self.read_family() else {
            return Duration::ZERO;
        };
        self.sampling.gathering.sample(at, reading.total);
        self.programs.meet(&reading.members, at);
        self.tell_memory(&reading, at);
        self.latest = reading.members;
        let looking = thread_time();
        self.turn_to_heaviest(at);
        self.look_at_heaviest(at);
        self.verify(at);
        self.looking += thread_time().saturating_sub(looking);
        reading.cost
    }

    fn read_family(&mut self) -> Option<FamilyReading> {
        self.family.as_mut().map(Family::read)
    }

    /// Tells the recording, with limits and VRAM now and then.
    fn tell_memory(&mut self, reading: &FamilyReading, now: Instant) {
        let due = self.next_surroundings <= now;
        let surroundings = self.heaviest.as_mut().filter(|_| due);
        let snapshot = match surroundings.map(|heaviest| heaviest.pulse.read()) {
            Some(Ok(seen)) => {
                self.next_surroundings = now + SURROUNDINGS;
                let gathering = &mut self.sampling.gathering;
                gathering.surroundings(seen.cgroup_current, seen.limits.as_ref(), &seen.vram);
                seen
            }
            Some(Err(_)) | None => Snapshot {
                at_us: reading.at_us,
                ..Snapshot::default()
            },
        };
        if reading.members.is_empty() {
            return;
        }
        self.sampling.log.tell(Kind::Pulse(Box::new(Snapshot {
            process: reading.total,
            ..snapshot
        })));
    }

    /// A moment that the program marked; it waits.
    fn mark(&mut self, mark: &Mark) {
        let begun = Instant::now();
        self.read();
        let total = self.sampling.gathering.resident();
        let pid = self.meant_by(mark);
        match mark.text.as_str() {
            "baseline" => self.sampling.gathering.baseline(total),
            "cycle" => {
                let in_use = self.look_at_mark(pid);
                self.sampling.gathering.cycle(total, in_use);
            }
            "dropped" => {
                self.look_at_mark(pid);
                self.sampling.gathering.dropped(total);
            }
            other => self.note(format!("mark: {other}")),
        }
        self.sampling.desk.answer(mark);
        self.sampling.gathering.waited_at_mark(begun.elapsed());
    }

    /// The process whose heap a mark is about: that which made it, unless it is a small one beside
    /// another, as the `plimsoll mark` of a script is.
    fn meant_by(&self, mark: &Mark) -> u32 {
        let rss = |pid: u32| {
            let member = self.latest.iter().find(|member| member.pid == pid);
            member
                .and_then(|member| member.process.rss.bytes())
                .unwrap_or(0)
        };
        let heaviest = self.heaviest.as_ref().map(|heaviest| heaviest.pid);
        let heaviest = heaviest.unwrap_or(self.sampling.pid);
        match mark.pid.map(std::num::NonZeroU32::get) {
            Some(pid) if rss(pid) >= rss(heaviest) / 4 => pid,
            _ => heaviest,
        }
    }

    fn end(mut self) -> (Gathering, Log) {
        self.read();
        if let Some(trouble) = self.trouble.take()
            && !self.sampling.gathering.has_looked()
        {
            self.note(format!("it could not be looked into: {trouble}"));
        }
        self.note_what_was_put_off();
        let cost = self.looker.as_ref().map_or(Duration::ZERO, Looker::cpu) + thread_time();
        let gathering = &mut self.sampling.gathering;
        gathering.sampling(cost);
        if let Some(family) = &self.family {
            let lasting = self.latest.iter().map(|member| Member {
                pid: member.pid,
                name: member.name.clone(),
                peak_rss: member.process.hwm,
                last_rss: member.process.rss,
                minor_faults: member.process.minor_faults,
            });
            let ended = family.ended().iter().map(|member| Member {
                pid: member.pid,
                name: member.name.clone(),
                peak_rss: member.peak,
                last_rss: member.rss,
                minor_faults: member.minor_faults,
            });
            let members: Vec<Member> = lasting.chain(ended).collect();
            let left = self.latest.len() as u64;
            gathering.members(members, family.ended_count() + left, left);
        }
        gathering.programs(self.programs.into_tried());
        (self.sampling.gathering, self.sampling.log)
    }
}

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A place for the program's marks, which is gone with it.
pub(crate) fn desk(folder: &Path) -> io::Result<Desk> {
    Desk::bind(folder.join("marks"))
}
