//! Settings of a new cache.

use std::fmt;
use std::sync::Arc;

use std::time::Duration;

use malloc_stats::{Allocator, Reader};
use plimsoll_events::{Opened, Stream};
use plimsoll_profiles::Reclaim;

use super::budgets::{Budgets, start};
use super::hands::Hands;
use super::keeper::{Duties, Keeper};
use super::telling::{About, Besides};
use super::ticks::{Ticking, Ticks};
use super::{Cache, Gate, Shared};
use crate::books::{Account, Rules};
use crate::bracket::{Brackets, Snapshots};
use crate::budget::Budget;
use crate::device::{Device, Host};
use crate::error::BuildError;
use crate::observe::{LoadObserver, Unobserved};
use crate::policy::{Lru, Policy};
use crate::storage::{Mapping, Storage};

/// How long the first in the queue waits before leases of resident models stay away from those
/// that would have to go for it.
const DRAIN_AFTER: Duration = Duration::from_millis(10);

/// How long a wait that cannot end goes on: a lease may have been given to another thread, which
/// nobody has seen yet.
const DEADLOCK_AFTER: Duration = Duration::from_secs(5);

const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// Tiers are bits of a word.
const MOST_DEVICES: usize = 32;

/// Builds a [`Cache`].
pub struct Builder {
    ram: Budget,
    devices: Vec<(Arc<dyn Device>, Budget)>,
    storage: Storage,
    mapping: Mapping,
    huge_pages: bool,
    pinned_at_most: Option<u64>,
    snapshots: Snapshots,
    reclaim: Reclaim,
    policy: Box<dyn Policy>,
    observer: Arc<dyn LoadObserver>,
    stream: Stream,
    allocator: Allocator,
    keep_ram_copy: bool,
    keep_alive: Duration,
    deadlock_after: Option<Duration>,
    ticks: Option<Duration>,
    opened: Option<Opened>,
    besides: Option<Besides>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            ram: Budget::unlimited(),
            devices: Vec::new(),
            storage: Storage::default(),
            mapping: Mapping::default(),
            huge_pages: false,
            pinned_at_most: None,
            snapshots: Snapshots::default(),
            reclaim: Reclaim::default(),
            policy: Box::new(Lru),
            observer: Arc::new(Unobserved),
            stream: Stream::silent(),
            allocator: Allocator {
                kind: plimsoll_profiles::serving(),
                ..Allocator::default()
            },
            keep_ram_copy: true,
            keep_alive: Duration::ZERO,
            deadlock_after: Some(DEADLOCK_AFTER),
            ticks: None,
            opened: None,
            besides: None,
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("ram", &self.ram)
            .field("devices", &self.devices)
            .field("storage", &self.storage)
            .field("policy", &self.policy.name())
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// The bytes of RAM that weights may take. Without it there is no limit.
    #[must_use]
    pub fn ram(mut self, budget: impl Into<Budget>) -> Builder {
        self.ram = budget.into();
        self
    }

    /// A device that may hold weights, and how many bytes of them. Keep its
    /// [`tier`](Device::tier), or an `Arc` of it, to lease on it.
    #[must_use]
    pub fn device(mut self, device: impl Device, budget: impl Into<Budget>) -> Builder {
        self.devices.push((Arc::new(device), budget.into()));
        self
    }

    /// Whether a model stays in RAM once a device has it, and is brought there on its way to the
    /// device where there is room: then coming back to the device costs a transfer and no reading.
    /// Yes, unless this says otherwise.
    #[must_use]
    pub fn keep_ram_copy(mut self, keep: bool) -> Builder {
        self.keep_ram_copy = keep;
        self
    }

    /// Evicts what nobody has leased for so long. Zero, the default, means never.
    #[must_use]
    pub fn keep_alive(mut self, time: Duration) -> Builder {
        self.keep_alive = time;
        self
    }

    /// How long a lease waits while every lease there is was taken by a thread that waits itself,
    /// before it is refused with [`Error::Deadlock`](crate::Error::Deadlock): 5 s, unless this says
    /// otherwise. `None` waits for ever.
    #[must_use]
    pub fn deadlock_after(mut self, time: Option<Duration>) -> Builder {
        self.deadlock_after = time;
        self
    }

    /// How weights are stored.
    #[must_use]
    pub fn storage(mut self, storage: Storage) -> Builder {
        self.storage = storage;
        self
    }

    /// How many bytes of RAM may be page-locked under storage [`pinned`](Storage::Pinned): half of
    /// the tightest limit of this process, the host's or its cgroup's, unless this says otherwise,
    /// and never more than `RLIMIT_MEMLOCK` where this process is bound by that. What is refused, by
    /// this or by the driver, is kept in storage `anonymous`; its load says why
    /// ([`Load::degraded`](plimsoll_events::Load::degraded)).
    #[must_use]
    pub fn pinned_at_most(mut self, bytes: u64) -> Builder {
        self.pinned_at_most = Some(bytes);
        self
    }

    /// How files are mapped, under storage [`mapped`](Storage::Mapped).
    #[must_use]
    pub fn mapping(mut self, mapping: Mapping) -> Builder {
        self.mapping = mapping;
        self
    }

    /// Whether weights lie in transparent huge pages, under storage
    /// [`anonymous`](Storage::Anonymous): fresh ones cost a load less than small ones do, and giving
    /// them back costs next to nothing. They are asked for by `madvise(2)`; where the kernel gives
    /// none, a warning says so and weights lie in small pages. No, unless this says otherwise: making
    /// them may take the kernel time to compact memory.
    #[must_use]
    pub fn huge_pages(mut self, huge: bool) -> Builder {
        self.huge_pages = huge;
        self
    }

    /// How deep the snapshots around loads and unloads look.
    #[must_use]
    pub fn snapshots(mut self, snapshots: Snapshots) -> Builder {
        self.snapshots = snapshots;
        self
    }

    /// What to do once unloads have freed memory that the system did not get back, usually the
    /// profile's. It is done in the background, and not too often.
    #[must_use]
    pub fn reclaim(mut self, reclaim: Reclaim) -> Builder {
        self.reclaim = reclaim;
        self
    }

    /// What to evict first.
    #[must_use]
    pub fn policy(mut self, policy: impl Policy + 'static) -> Builder {
        self.policy = Box::new(policy);
        self
    }

    /// Who watches loads from inside.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn LoadObserver>) -> Builder {
        self.observer = observer;
        self
    }

    /// Where events go. Whoever hears them must not call the cache, nor block for long.
    #[must_use]
    pub fn stream(mut self, stream: Stream) -> Builder {
        self.stream = stream;
        self
    }

    /// The allocator that serves, with its settings, where
    /// [`in_force`](plimsoll_profiles::in_force) has found them out.
    #[must_use]
    pub fn allocator(mut self, allocator: Allocator) -> Builder {
        self.allocator = allocator;
        self
    }

    /// Tells memory and [where everything is](Cache::residency) so often, as events, for as long as
    /// the stream is heard: for recordings, and programs that watch themselves. Without it that is
    /// told once a second while a live screen is [connected](Cache::publish), and else not at all.
    /// No oftener than every 10 ms.
    #[must_use]
    pub fn ticks(mut self, period: Duration) -> Builder {
        self.ticks = Some(period.max(SHORTEST_TICK));
        self
    }

    /// How the program has opened its stream, to be told again to live screens that come later, with
    /// the models that the cache has got to know since.
    #[must_use]
    pub fn opened(mut self, opened: Opened) -> Builder {
        self.opened = Some(opened);
        self
    }

    /// What else the program itself counts as memory in use, bytes, to be told with each tick as
    /// [`churn_bytes`](plimsoll_events::Memory::churn_bytes). It must not call the cache.
    #[must_use]
    pub fn besides(mut self, bytes: impl Fn() -> u64 + Send + Sync + 'static) -> Builder {
        self.besides = Some(Box::new(bytes));
        self
    }

    /// Makes the cache. It reserves address space when the first model is loaded, and no memory.
    ///
    /// # Errors
    /// [`BuildError`]: where this process's memory cannot be read at all (no `/proc`), where an
    /// automatic budget finds nothing to follow, or where a device was given twice.
    pub fn build(self) -> Result<Cache, BuildError> {
        let reader = Reader::new(self.allocator.clone())?;
        if self.snapshots == Snapshots::Auto {
            // Measures what a full snapshot costs, and gives brackets a reading to carry, before
            // the first load could pay for it.
            let _ = reader.full();
        }
        let home_bytes = match self.ram.limit {
            crate::budget::Limit::Fixed(bytes) => bytes,
            crate::budget::Limit::Auto => 0,
        };
        let locker = self
            .devices
            .iter()
            .find_map(|(device, _)| device.page_locker());
        let mut ram = Host::ram(self.storage, home_bytes)
            .with_mapping(self.mapping)
            .with_page_locker(locker, self.pinned_at_most);
        if self.huge_pages {
            ram = ram.with_huge_pages();
        }
        let ram = Arc::new(ram);
        let mut devices: Vec<Arc<dyn Device>> = vec![Arc::clone(&ram) as Arc<dyn Device>];
        let mut budgets = vec![self.ram];
        for (device, budget) in self.devices {
            if devices.iter().any(|known| known.tier() == device.tier()) {
                return Err(BuildError::Twice {
                    device: device.name().to_owned(),
                });
            }
            if devices.iter().any(|known| known.name() == device.name()) {
                return Err(BuildError::SameName {
                    device: device.name().to_owned(),
                });
            }
            devices.push(device);
            budgets.push(budget);
        }
        if devices.len() > MOST_DEVICES {
            return Err(BuildError::TooMany {
                devices: devices.len() - 1,
                most: MOST_DEVICES - 1,
            });
        }
        let mut accounts = Vec::new();
        let mut followed = Vec::new();
        for (tier, (device, budget)) in devices.iter().zip(budgets).enumerate() {
            let start =
                start(tier, device.as_ref(), budget).map_err(|reason| BuildError::Unfollowed {
                    tier: device.name().to_owned(),
                    reason,
                })?;
            let account = Account::new(tier, start.budget, start.ceiling, start.reserve);
            accounts.push(account);
            followed.extend(start.followed);
        }
        let brackets = Brackets::new(reader, self.snapshots);
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let rules = Rules {
            keep_ram_copy: self.keep_ram_copy,
            staging: devices
                .iter()
                .map(|device| device.staging())
                .max()
                .unwrap_or(0),
            drain_after_ns: nanoseconds(DRAIN_AFTER),
            deadlock_after_ns: self.deadlock_after.map(nanoseconds),
        };
        let tiers = devices.iter().map(|device| device.tier()).collect();
        let about = About {
            reclaim: self.reclaim,
            opened: self.opened,
            besides: self.besides,
        };
        let hands = Hands::new(ram, devices, self.observer, self.stream, brackets, about);
        let gate = Gate::new(hands, rules, self.policy, accounts);
        let _ = gate.io.gate.set(Arc::downgrade(&gate));
        let budgets = Arc::new(Budgets::new(followed));
        budgets.follow(&gate, "start");
        let duties = Duties {
            keep_alive: self.keep_alive,
            reclaim: self.reclaim,
            budgets: Arc::clone(&budgets),
        };
        let keeper = Keeper::begin(&gate, duties);
        let ticking = Ticking(Ticks::begin(&gate, self.ticks));
        Ok(Cache {
            shared: Arc::new(Shared::new(keeper, ticking, gate, tiers, budgets)),
        })
    }
}
