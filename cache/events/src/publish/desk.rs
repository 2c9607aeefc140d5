//! Where clients' requests are done: one at a time, on a thread that begins with the first.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Instant;

use super::Host;
use super::server::{Bell, message};
use crate::request::{Answer, Ask};
use crate::subscribe::Hearers;

/// An answer, and the number of the first event that was told after it.
pub(super) type Due = (u64, Answer);

/// Where a client's answers wait for the thread that serves it.
#[derive(Default)]
pub(super) struct Mailbox {
    answers: Mutex<Vec<Due>>,
    gone: AtomicBool,
}

impl Mailbox {
    fn answers(&self) -> MutexGuard<'_, Vec<Due>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> Vec<Due> {
        std::mem::take(&mut self.answers())
    }

    /// The client is gone: what it asked and was not begun is not done.
    pub(super) fn abandon(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }
}

struct Job {
    ask: Ask,
    from: Arc<Mailbox>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    ending: bool,
    worker: Option<JoinHandle<()>>,
    worker_id: Option<ThreadId>,
}

/// Takes requests. How many wait is bounded by how many clients there are, and by how much each may
/// have asked.
pub(super) struct Desk {
    host: Arc<dyn Host>,
    hearers: Arc<Hearers>,
    bell: Arc<Bell>,
    queue: Mutex<Queue>,
    came: Condvar,
}

impl Desk {
    pub(super) fn new(host: Arc<dyn Host>, hearers: Arc<Hearers>, bell: Arc<Bell>) -> Desk {
        Desk {
            host,
            hearers,
            bell,
            queue: Mutex::default(),
            came: Condvar::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request, whose answer will come to the mailbox.
    ///
    /// # Errors
    /// Why it is not done.
    pub(super) fn take(self: &Arc<Self>, ask: Ask, from: &Arc<Mailbox>) -> Result<(), String> {
        let mut queue = self.queue();
        if queue.ending {
            return Err(ENDING.to_owned());
        }
        if queue.worker.is_none() {
            let desk = Arc::clone(self);
            let worker = std::thread::Builder::new()
                .name("plimsoll-asked".to_owned())
                .spawn(move || desk.work())
                .map_err(|error| format!("there is no thread to do it: {error}"))?;
            queue.worker_id = Some(worker.thread().id());
            queue.worker = Some(worker);
        }
        queue.jobs.push_back(Job {
            ask,
            from: Arc::clone(from),
        });
        drop(queue);
        self.came.notify_one();
        Ok(())
    }

    /// Whether requests are done on this thread.
    pub(super) fn is_here(&self) -> bool {
        self.queue().worker_id == Some(std::thread::current().id())
    }

    /// Does nothing more than what was begun; what waits is refused.
    pub(super) fn close(&self) {
        self.queue().ending = true;
        self.came.notify_all();
    }

    /// Waits for what was begun, once this was closed.
    pub(super) fn join(&self) {
        let worker = self.queue().worker.take();
        if let Some(worker) = worker {
            let _ = worker.join();
        }
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            if job.from.gone.load(Ordering::SeqCst) {
                continue;
            }
            let begun = Instant::now();
            let doing = AssertUnwindSafe(|| self.host.answer(&job.ask.request));
            let mut answer = catch_unwind(doing).unwrap_or_else(|panic| {
                Answer::refused(format!("it ended in a panic: {}", message(&*panic)))
            });
            answer.id = job.ask.id;
            answer.took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.give(&job.from, answer);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.ending {
                let left = std::mem::take(&mut queue.jobs);
                drop(queue);
                for Job { ask, from } in left {
                    let mut answer = Answer::refused(ENDING);
                    answer.id = ask.id;
                    self.give(&from, answer);
                }
                return None;
            }
            match queue.jobs.pop_front() {
                Some(job) => return Some(job),
                None => {
                    queue = self
                        .came
                        .wait(queue)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn give(&self, to: &Mailbox, answer: Answer) {
        let next_seq = self.hearers.next_seq();
        to.answers().push((next_seq, answer));
        self.bell.ring();
    }
}

const ENDING: &str = "this is no longer published";
