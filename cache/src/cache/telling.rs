//! Who hears what the cache does, while it does it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use malloc_stats::Depth;
use plimsoll_events::{
    Answer, DeviceSeen, Host, Kind, Load, ModelSeen, Opened, Picture, Publication, PublishError,
    Request, Subscription,
};
use plimsoll_profiles::Reclaim;

use super::hands::Hands;
use super::known::Known;
use super::ticks::Ticks;
use super::{Cache, Gate, Shared};
use crate::books::RAM;
use crate::model::Model;

/// Of so many models a greeting tells the groups of tensors. A line has an end.
const MOST_GROUPED: usize = 256;

/// Counts what else the program has in use, bytes.
pub(super) type Besides = Box<dyn Fn() -> u64 + Send + Sync>;

/// What a cache tells about itself besides what it does.
pub(super) struct About {
    /// What the profile does to ask freed memory back.
    pub(super) reclaim: Reclaim,
    /// How the program has opened the stream.
    pub(super) opened: Option<Opened>,
    pub(super) besides: Option<Besides>,
}

/// What there is to tell of a load.
pub(crate) struct Told {
    /// The model, where nobody has heard of it.
    pub(super) seen: Option<Model>,
    pub(super) load: Box<Load>,
}

impl Hands {
    /// Whether whoever hears the stream has not heard of this model.
    pub(super) fn is_news(&self, known: &Known) -> bool {
        if !self.stream.is_heard() {
            return false;
        }
        let base = known.base.as_ref().filter(|_| known.model.is_part());
        let known = base.map_or(known, |base| &base.model);
        let model = &known.model;
        let is_this = |seen: &ModelSeen| seen.name == model.name() && seen.bytes == model.bytes();
        let opened = self.about.opened.as_ref();
        let was_named = opened.is_some_and(|opened| opened.models.iter().any(is_this));
        !was_named && known.is_news()
    }
}

impl Cache {
    /// Hears every event from now on. At most `capacity` of them wait to be received; what comes
    /// beside is dropped, counted and said. The cache never waits for a subscriber.
    #[must_use]
    pub fn subscribe(&self, capacity: usize) -> Subscription {
        self.shared.gate.io.stream.subscribe(capacity)
    }

    /// Shows this cache to live screens of the same user, by a Unix socket that lives as long as
    /// what this returns: at `path`, or in `$XDG_RUNTIME_DIR/plimsoll`, else
    /// `/tmp/plimsoll-UID`, by the number of the process. Whoever connects hears first who this is,
    /// how its memory is, and which models are where.
    ///
    /// While anybody is connected, memory and residency are told once a second, to all who hear the
    /// stream. Who is connected may [ask](plimsoll_events::Request) for a trim, an eviction, a drop
    /// or another budget; that is done on a thread of its own, as if the program had called the
    /// cache there.
    ///
    /// # Errors
    /// [`PublishError`], with the path and what to do.
    pub fn publish(&self, path: Option<PathBuf>) -> Result<Publication, PublishError> {
        let shown = Shown {
            shared: Arc::downgrade(&self.shared),
            gate: Arc::downgrade(&self.shared.gate),
            ticks: Arc::clone(&self.shared.ticking.0),
            clients: AtomicUsize::new(0),
        };
        Publication::begin_with(&self.shared.gate.io.stream, path, shown)
    }
}

/// A cache as its publication knows it, without keeping it.
struct Shown {
    shared: Weak<Shared>,
    gate: Weak<Gate>,
    ticks: Arc<Ticks>,
    clients: AtomicUsize,
}

impl Host for Shown {
    fn greeting(&self) -> Vec<Kind> {
        let gate = self.gate.upgrade();
        gate.map_or_else(Vec::new, |gate| gate.greeting())
    }

    fn answer(&self, request: &Request) -> Answer {
        match self.shared.upgrade() {
            Some(shared) => Cache { shared }.answer(request),
            None => Answer::refused("the cache has ended"),
        }
    }

    fn attended(&self, clients: usize) {
        let before = self.clients.swap(clients, Ordering::SeqCst);
        self.ticks.attended(before, clients);
    }
}

impl Gate {
    /// What tells a late listener who this is, how its memory is, and where everything is.
    fn greeting(&self) -> Vec<Kind> {
        let picture = self.picture();
        let mut opened = match &self.io.about.opened {
            Some(opened) => opened.clone(),
            None => self.opened(&picture),
        };
        self.add_models(&mut opened.models);
        vec![
            Kind::Opened(Box::new(opened)),
            self.sample(self.io.brackets.look(Depth::Full)),
            Kind::Picture(Box::new(picture)),
        ]
    }

    /// Adds the models that are known and not among those.
    fn add_models(&self, models: &mut Vec<ModelSeen>) {
        let known: Vec<Model> = {
            let books = self.books();
            let known = books.entries();
            let whole = known.filter(|entry| !entry.model.model.is_part());
            whole.map(|entry| entry.model.model.clone()).collect()
        };
        let named: HashSet<(String, u64)> = models
            .iter()
            .map(|seen| (seen.name.clone(), seen.bytes))
            .collect();
        for model in known {
            if !named.contains(&(model.name().to_owned(), model.bytes())) {
                models.push(if models.len() < MOST_GROUPED {
                    model.seen()
                } else {
                    model.seen_whole()
                });
            }
        }
    }

    /// How a stream begins that its program does not open.
    fn opened(&self, picture: &Picture) -> Opened {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let program = std::env::current_exe().ok().and_then(|path| {
            let name = path.file_name()?;
            Some(name.to_string_lossy().into_owned())
        });
        let ram = &picture.tiers[RAM];
        Opened {
            unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            pid: std::process::id(),
            program: program.unwrap_or_default(),
            allocator_name: self.io.brackets.allocator_name(),
            allocator: Some(self.io.brackets.allocator().clone()),
            storage: self.io.ram.storage().to_string(),
            budget_bytes: (ram.budget_bytes < u64::MAX).then_some(ram.budget_bytes),
            devices: picture.tiers[RAM + 1..]
                .iter()
                .map(|tier| DeviceSeen {
                    tier: tier.tier.clone(),
                    budget_bytes: tier.budget_bytes,
                    simulated: tier.simulated,
                })
                .collect(),
            ..Opened::default()
        }
    }
}
