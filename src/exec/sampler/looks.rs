//! Looking into processes: who serves `malloc` there, whether the profile took, what the heap holds.
//!
//! That costs milliseconds, and a walk of a large heap much more, so it is done to the process with
//! the most memory, and once to each program, as long as it takes a hundredth of the time: what a
//! first walk will take is estimated from the memory there is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use malloc_stats::Metric;
use malloc_stats::inspect::{Ask, Inspection, Looker, MemberReading, Pulse, Target, inspect};
use plimsoll_profiles::took;

use super::{Heaviest, Work};
use crate::exec::programs::{Identity, Judgement};

/// Heaps are walked so far apart at least.
const LOOKS: Duration = Duration::from_secs(1);
/// Looking may take one part of the time in so many; but for marks, where the program asks for it.
const PART: u32 = 100;
/// And so much besides, without which nothing would be known of what is short.
const AT_FIRST: Duration = Duration::from_millis(10);
/// What a walk of a GiB takes, and a little more: docs/performance.md has 0.2 s, and the mappings
/// around it are read too.
const WALK_OF_A_GIB: Duration = Duration::from_millis(250);

/// When heaps are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    Never,
    /// So that all walks, the first one too, take a hundredth of the time.
    Paced,
    /// The first one as soon as there is a heap, whatever it takes, then paced.
    FirstAtOnce,
}

/// What looking into a process takes, from the memory that is its own.
fn estimate(reading: &MemberReading) -> Duration {
    let anonymous = reading.process.anon.bytes();
    // All of it, where the kernel does not tell the kinds apart.
    let bytes = anonymous.or(reading.process.rss.bytes()).unwrap_or(0);
    WALK_OF_A_GIB.mul_f64(bytes as f64 / f64::from(1 << 30))
}

impl Work {
    /// Whether there is time left for a look that takes so long.
    fn may_look(&self, now: Instant, takes: Duration) -> bool {
        let looker = self.looker.as_ref().map_or(Duration::ZERO, Looker::cpu);
        let passed = now.saturating_duration_since(self.begun);
        looker + self.looking + takes <= AT_FIRST + passed / PART
    }

    /// Whether the heap of a process may be walked now.
    fn may_walk(&self, now: Instant, member: &MemberReading) -> bool {
        match self.sampling.looks {
            Looks::Never => false,
            Looks::FirstAtOnce if self.looker.is_none() => true,
            Looks::FirstAtOnce | Looks::Paced => self.may_look(now, estimate(member)),
        }
    }

    /// Whether the profile took in the largest program of which that is not known, by its
    /// allocator alone.
    pub(super) fn verify(&mut self, now: Instant) {
        let variables = &self.sampling.variables;
        let identity = |pid| Identity::of(pid, variables);
        self.programs.identify(&self.latest, now, identity);
        if !self.may_look(now, Duration::ZERO) {
            return;
        }
        let Some(due) = self.programs.due(&self.latest) else {
            return;
        };
        let member = self.latest.iter().find(|member| member.pid == due.pid);
        let may_walk = member.is_some_and(|member| self.may_walk(now, member));
        let ask = Ask {
            heap: due.pid == self.sampling.pid && may_walk,
            surroundings: false,
            ..Ask::default()
        };
        if let Some((inspection, environ)) = look_into(due.pid, &ask) {
            self.judge(Some(due.program), &inspection, environ.as_deref());
        }
    }

    fn judge(&mut self, program: Option<usize>, inspection: &Inspection, environ: Option<&[u8]>) {
        let Some(program) = program else {
            return;
        };
        let took = took(&self.sampling.profile, inspection, environ);
        let version = inspection.allocator.version.as_deref();
        let version = version.map_or(String::new(), |version| format!(" {version}"));
        let is_known = took.allocator != "unknown";
        let judgement = Judgement {
            name: inspection.process.command.clone(),
            allocator: is_known.then(|| took.allocator + &version),
            settings: took.settings,
            refused: took.refused,
        };
        self.programs.judge(program, judgement);
    }

    /// The process with the most memory is the one that is looked into.
    pub(super) fn turn_to_heaviest(&mut self, now: Instant) {
        let rss = |member: &MemberReading| member.process.rss.bytes();
        let in_place = self.latest.iter().filter_map(|member| {
            let since = self.programs.in_place(member, now)?;
            Some((member, since))
        });
        let Some((member, since)) = in_place.max_by_key(|(member, _)| rss(member)) else {
            return;
        };
        let known = self.heaviest.as_ref();
        if known.is_some_and(|known| (known.pid, known.since) == (member.pid, since)) {
            return;
        }
        // Two that are about as large are not looked at in turns.
        let lives = |known: &Heaviest| {
            let member = self.latest.iter().find(|member| member.pid == known.pid)?;
            (self.programs.in_place(member, now) == Some(known.since)).then(|| rss(member))?
        };
        let held = known.and_then(lives).unwrap_or(0);
        let clearly = rss(member) > Some(held.saturating_add(held / 4));
        if !clearly || known.is_some() && !self.may_look(now, Duration::ZERO) {
            return;
        }
        let Ok(target) = Target::open(member.pid).map(Arc::new) else {
            return;
        };
        let Ok(pulse) = Pulse::of(&target) else {
            return;
        };
        let variables = &self.sampling.variables;
        let identity = |pid| Identity::of(pid, variables);
        self.heaviest = Some(Heaviest {
            pid: member.pid,
            since,
            program: self.programs.place(member, identity),
            pulse,
            unseen: Some(target),
        });
    }

    /// Has the heaviest one looked into from now on, once there is time for it.
    pub(super) fn look_at_heaviest(&mut self, now: Instant) {
        let Some(heaviest) = &self.heaviest else {
            return;
        };
        let member = self.latest.iter().find(|member| member.pid == heaviest.pid);
        if heaviest.unseen.is_none() || !member.is_some_and(|member| self.may_walk(now, member)) {
            return;
        }
        let unseen = self.heaviest.as_mut().and_then(|seen| seen.unseen.take());
        let Some(target) = unseen else {
            return;
        };
        match &self.looker {
            Some(looker) => looker.turn_to(target),
            None => match Looker::begin(target, LOOKS) {
                Ok(looker) => self.looker = Some(looker),
                Err(error) => self.note(format!("nothing looks into it: no thread: {error}")),
            },
        }
    }

    /// Says why nothing is known of the heap, where it was put off to the end.
    pub(super) fn note_what_was_put_off(&mut self) {
        let is_unseen = |heaviest: &Heaviest| heaviest.unseen.is_some();
        if self.sampling.looks == Looks::Never
            || self.sampling.gathering.has_looked()
            || !self.heaviest.as_ref().is_some_and(is_unseen)
        {
            return;
        }
        self.note(
            "no heap was walked: that would have taken more than a hundredth of the time; mark a \
             moment (plimsoll mark dropped) to have it walked there"
                .to_owned(),
        );
    }

    /// What the looker found.
    pub(super) fn collect(&mut self) {
        let Some(found) = self.looker.as_ref().map(Looker::take) else {
            return;
        };
        // Most often it has ended meanwhile, and another one is looked into next.
        self.trouble = found.trouble.or(self.trouble.take());
        if let Some(inspection) = found.inspection {
            self.looked(*inspection, !self.kept_by_mark);
        }
    }

    fn looked(&mut self, inspection: Inspection, keep: bool) {
        let environ = std::fs::read(format!("/proc/{}/environ", inspection.pid));
        let heaviest = self.heaviest.as_ref();
        let program = heaviest.filter(|heaviest| heaviest.pid == inspection.pid);
        let program = program.and_then(|heaviest| heaviest.program);
        self.judge(program, &inspection, environ.ok().as_deref());
        let gathering = &mut self.sampling.gathering;
        gathering.look(Instant::now(), &inspection, keep);
        self.sampling.log.look(inspection);
    }

    /// What its heap has in use, at a mark.
    pub(super) fn look_at_mark(&mut self, pid: u32) -> Metric {
        if self.sampling.looks == Looks::Never {
            return Metric::Unavailable;
        }
        let ask = Ask {
            surroundings: false,
            ..Ask::default()
        };
        let Some((inspection, environ)) = look_into(pid, &ask) else {
            return Metric::Unavailable;
        };
        let variables = &self.sampling.variables;
        let identity = |pid| Identity::of(pid, variables);
        let member = self.latest.iter().find(|member| member.pid == pid);
        let program = member.and_then(|member| self.programs.place(member, identity));
        self.judge(program, &inspection, environ.as_deref());
        let in_use = inspection.heap.as_ref().map(|heap| heap.totals.in_use);
        self.kept_by_mark = true;
        self.sampling
            .gathering
            .look(Instant::now(), &inspection, true);
        self.sampling.log.look(inspection);
        in_use.unwrap_or_default()
    }
}

/// Looks into a process; gives its environment too.
fn look_into(pid: u32, ask: &Ask) -> Option<(Inspection, Option<Vec<u8>>)> {
    let target = Target::open(pid).ok()?;
    let environ = target.bytes("environ").ok();
    Some((inspect(&target, ask).ok()?, environ))
}
