//! Who hears what the cache does, while it does it.

use std::path::PathBuf;
use std::sync::Arc;

use plimsoll_events::{
    DeviceSeen, Kind, ModelSeen, Opened, Publication, PublishError, Subscription,
};

use super::{Cache, Gate};
use crate::books::RAM;
use crate::model::Model;

impl Cache {
    /// Hears every event from now on. At most `capacity` of them wait to be received; what comes
    /// beside is dropped, counted and said. The cache never waits for a subscriber.
    #[must_use]
    pub fn subscribe(&self, capacity: usize) -> Subscription {
        self.shared.gate.io.stream.subscribe(capacity)
    }

    /// Shows this cache to live screens of the same user, by a Unix socket that lives as long as
    /// what this returns: at `path`, or in `$XDG_RUNTIME_DIR/plimsoll`, else
    /// `/tmp/plimsoll-UID`, by the number of the process. Whoever connects hears first which models
    /// are where.
    ///
    /// # Errors
    /// [`PublishError`], with the path and what to do.
    pub fn publish(&self, path: Option<PathBuf>) -> Result<Publication, PublishError> {
        let gate = Arc::downgrade(&self.shared.gate);
        let greet = move || gate.upgrade().map_or_else(Vec::new, |gate| gate.greeting());
        Publication::begin(&self.shared.gate.io.stream, path, greet)
    }
}

impl Gate {
    /// What tells a late listener where everything is.
    fn greeting(&self) -> Vec<Kind> {
        let picture = self.picture();
        let models = {
            let books = self.books();
            let seen = |model: &Model| ModelSeen {
                name: model.name().to_owned(),
                bytes: model.bytes(),
                tensors: model.tensors().len() as u64,
            };
            let somewhere = books.somewhere();
            somewhere
                .map(|(entry, _)| seen(&entry.model.model))
                .collect()
        };
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let program = std::env::current_exe().ok().and_then(|path| {
            let name = path.file_name()?;
            Some(name.to_string_lossy().into_owned())
        });
        let ram = &picture.tiers[RAM];
        let opened = Opened {
            unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            pid: std::process::id(),
            program: program.unwrap_or_default(),
            allocator_name: self.io.brackets.allocator_name(),
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
            models,
            ..Opened::default()
        };
        vec![
            Kind::Opened(Box::new(opened)),
            Kind::Picture(Box::new(picture)),
        ]
    }
}
