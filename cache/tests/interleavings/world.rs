//! What the books act upon, and what has to be true of it whatever the order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use plimsoll_events::EvictReason;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread::{JoinHandle, yield_now};

use crate::books::{
    Account, Ask, Choice, Denied, Entry, Fault, Grant, Holder, Io, Named, Pending, RAM, Remains,
    Reserved, Route, Rules, Seat, Task, Wait,
};
use crate::policy::Lru;

pub(crate) type Gate = crate::books::Gate<World>;
pub(crate) type Model = Arc<Entry<Weights>>;

/// A model: a number of its own, so that another of the same name is told apart.
pub(crate) struct Weights {
    name: &'static str,
    id: usize,
}

impl Named for Weights {
    fn name(&self) -> &str {
        self.name
    }
}

/// How a load fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Broken,
    /// The device has no memory, whatever the books say.
    Full(u64),
    Abandoned,
}

impl Fault for Failure {
    fn wants_room(&self) -> Option<u64> {
        match self {
            Failure::Full(bytes) => Some(*bytes),
            Failure::Broken | Failure::Abandoned => None,
        }
    }

    fn abandoned(_: &str) -> Failure {
        Failure::Abandoned
    }
}

type Place = (usize, usize);

#[derive(Default)]
struct State {
    /// Bytes that exist in each tier.
    bytes: Vec<u64>,
    /// Weights that are there, by model and tier.
    there: BTreeSet<Place>,
    /// Leases that use them.
    users: BTreeMap<Place, usize>,
    /// Bytes for which pages are kept. What takes back more than there is takes nothing else.
    expected: Vec<u64>,
    loads: BTreeMap<Place, usize>,
    failures: BTreeMap<usize, VecDeque<Failure>>,
    spawned: Vec<JoinHandle<()>>,
    models: Vec<Model>,
}

/// Memory in tiers, and its loads and evictions.
pub(crate) struct World {
    clock: AtomicU64,
    /// Not the scheduler's: it is never held where another thread could run.
    state: Mutex<State>,
    gate: OnceLock<Weak<Gate>>,
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        // A failure is shown as it is, not as a lock that it poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, nanoseconds: u64) {
        self.clock.fetch_add(nanoseconds, Ordering::SeqCst);
    }

    /// What exists counts, at every moment.
    fn all_bytes_count(&self) {
        let gate = self.gate.get().and_then(Weak::upgrade).unwrap();
        let books = gate.books();
        let state = self.state();
        for account in &books.accounts {
            let exists = state.bytes[account.tier];
            assert!(
                exists <= account.used(),
                "{exists} bytes exist in tier {}, {} count",
                account.tier,
                account.used()
            );
        }
    }

    fn free(&self, seat: &Seat<Weights>) -> bool {
        let mut state = self.state();
        let place = place(seat);
        let was_there = state.there.remove(&place);
        if was_there {
            assert_eq!(
                state.users.get(&place).copied().unwrap_or(0),
                0,
                "evicted while somebody uses it"
            );
            state.bytes[seat.tier] -= seat.charge();
        }
        was_there
    }
}

fn place(seat: &Seat<Weights>) -> Place {
    (seat.entry.model.id, seat.tier)
}

impl Io for World {
    type Model = Weights;
    type Error = Failure;
    type Told = ();

    fn now_ns(&self) -> u64 {
        // No two readings are the same, so that there is an order of who was leased last.
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn load(&self, task: &Task<Self>) -> (Result<(), Failure>, ()) {
        let (seat, place) = (&task.seat, place(&task.seat));
        let source = (seat.entry.model.id, RAM);
        let source_is_there = || {
            if task.route == Route::Ram {
                assert!(self.state().there.contains(&source), "no copy in RAM");
            }
        };
        {
            let mut state = self.state();
            assert!(!state.there.contains(&place), "loaded twice");
            state.bytes[seat.tier] += seat.charge();
            let expected = &mut state.expected[seat.tier];
            *expected = expected.saturating_sub(seat.charge());
            *state.loads.entry(place).or_default() += 1;
        }
        source_is_there();
        self.all_bytes_count();
        yield_now();
        source_is_there();
        let mut state = self.state();
        let failures = state.failures.get_mut(&place.0);
        if let Some(failure) = failures.and_then(VecDeque::pop_front) {
            state.bytes[seat.tier] -= seat.charge();
            return (Err(failure), ());
        }
        assert!(state.there.insert(place), "loaded twice at once");
        (Ok(()), ())
    }

    fn tell(&self, (): ()) {
        yield_now();
    }

    fn evict(
        &self,
        seat: &Seat<Weights>,
        _: &EvictReason,
        _: &Choice,
        _: &mut Option<Box<dyn Remains>>,
    ) {
        assert_eq!(seat.slot().pins.count(), 0, "evicted while it is leased");
        yield_now();
        assert!(self.free(seat), "evicted and not there");
        yield_now();
    }

    fn discard(&self, seat: &Seat<Weights>, _: &mut Option<Box<dyn Remains>>) {
        self.free(seat);
    }

    fn expect(&self, tier: usize, bytes: u64) {
        self.state().expected[tier] += bytes;
    }

    fn unexpect(&self, tier: usize, bytes: u64) {
        let expected = &mut self.state().expected[tier];
        *expected = expected.saturating_sub(bytes);
    }

    fn spawn(&self, work: Box<dyn FnOnce() + Send>) {
        let thread = shuttle::thread::spawn(work);
        self.state().spawned.push(thread);
    }
}

/// Rules under which no time has to pass.
pub(crate) const PATIENT: Rules = Rules {
    keep_ram_copy: true,
    staging: 4,
    drain_after_ns: u64::MAX,
    deadlock_after_ns: None,
};

/// A gate over tiers of these budgets, RAM first.
pub(crate) fn gate(budgets: &[u64], rules: Rules) -> Arc<Gate> {
    let world = World {
        clock: AtomicU64::new(1),
        state: Mutex::new(State {
            bytes: vec![0; budgets.len()],
            expected: vec![0; budgets.len()],
            ..State::default()
        }),
        gate: OnceLock::new(),
    };
    let accounts = budgets.iter().enumerate();
    let accounts = accounts.map(|(tier, budget)| Account::new(tier, *budget, *budget, 0));
    let gate = Gate::new(world, rules, Box::new(Lru), accounts.collect());
    gate.io.gate.set(Arc::downgrade(&gate)).unwrap();
    gate
}

/// A model of so many bytes in whichever tier.
pub(crate) fn model(gate: &Gate, name: &'static str, bytes: u64) -> Model {
    let mut books = gate.books();
    let mut state = gate.io.state();
    let id = state.models.len();
    let charges = vec![bytes; books.accounts.len()];
    let model = books.register(Weights { name, id }, charges);
    state.models.push(Arc::clone(&model));
    model
}

/// Has the next loads of a model fail.
pub(crate) fn fails(gate: &Gate, model: &Model, failures: &[Failure]) {
    let mut state = gate.io.state();
    let failures = failures.iter().copied().collect();
    state.failures.insert(model.model.id, failures);
}

/// How often a model was loaded into a tier, or was tried to be.
pub(crate) fn loads(gate: &Gate, model: &Model, tier: usize) -> usize {
    let state = gate.io.state();
    let loads = state.loads.get(&(model.model.id, tier));
    loads.copied().unwrap_or(0)
}

pub(crate) fn asks<'a>(wanted: impl IntoIterator<Item = (&'a Model, usize)>) -> Vec<Ask<Weights>> {
    let ask = |(model, tier): (&Model, usize)| Ask::new(Arc::clone(model), vec![tier]);
    wanted.into_iter().map(ask).collect()
}

/// A lease, whose models are there for as long as it lives.
pub(crate) struct Lease {
    gate: Arc<Gate>,
    seats: Vec<Seat<Weights>>,
    reserved: Reserved,
    holder: Option<Arc<Holder>>,
}

impl Lease {
    pub(crate) fn new(
        gate: &Arc<Gate>,
        grant: Grant<Weights>,
        holder: Option<Arc<Holder>>,
    ) -> Lease {
        let seats: Vec<_> = grant.seats.into_iter().map(|(seat, _)| seat).collect();
        let mut state = gate.io.state();
        for seat in &seats {
            assert!(state.there.contains(&place(seat)), "leased, and not there");
            *state.users.entry(place(seat)).or_default() += 1;
        }
        drop(state);
        Lease {
            gate: Arc::clone(gate),
            seats,
            reserved: grant.reserved,
            holder,
        }
    }

    /// Uses the weights for a while.
    pub(crate) fn work(&self) {
        yield_now();
        let state = self.gate.io.state();
        for seat in &self.seats {
            assert!(state.there.contains(&place(seat)), "evicted under a lease");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(holder) = &self.holder {
            holder.let_go(self.seats.len());
        }
        for seat in &self.seats {
            *self.gate.io.state().users.entry(place(seat)).or_default() -= 1;
        }
        self.gate.leave(self.seats.iter(), &self.reserved);
    }
}

/// Sets a budget as whoever watches the machine does.
pub(crate) fn set_budget(gate: &Arc<Gate>, tier: usize, budget: u64, ceiling: u64) {
    gate.set_budget(tier, budget, ceiling);
    gate.wake_tasks();
    gate.repair();
}

/// A lease on what is there, without the lock.
pub(crate) fn hit(gate: &Arc<Gate>, model: &Model, tier: usize) -> Option<Lease> {
    let seat = Seat::new(model, tier);
    seat.slot().pins.enter().then(|| {
        seat.slot().leased(gate.io.now_ns(), true);
        let grant = Grant {
            seats: vec![(seat, true)],
            reserved: Reserved::default(),
            asked: vec![0],
        };
        Lease::new(gate, grant, None)
    })
}

/// A lease as the cache asks for one: again, where a load that it had joined was withdrawn.
pub(crate) fn lease<'a>(
    gate: &Arc<Gate>,
    wanted: impl IntoIterator<Item = (&'a Model, usize)> + Clone,
    wait: Wait,
) -> Result<Lease, Denied<Failure>> {
    let mut pending = Pending::new(gate, asks(wanted.clone()), None);
    loop {
        match gate.lease(&mut pending, wait) {
            Ok(grant) => return Ok(Lease::new(gate, grant, None)),
            Err(Denied::Retired) if !wanted.clone().into_iter().any(|one| one.0.is_retired()) => {}
            Err(denied) => return Err(denied),
        }
        pending.ask_again(asks(wanted.clone()));
    }
}

/// Leases models in RAM, works with them and lets them go.
pub(crate) fn use_in_ram(gate: &Arc<Gate>, models: &[&Model]) {
    if let [model] = models
        && let Some(lease) = hit(gate, model, RAM)
    {
        return lease.work();
    }
    let wanted: Vec<(&Model, usize)> = models.iter().map(|model| (*model, RAM)).collect();
    lease(gate, wanted, Wait::Forever).unwrap().work();
}

/// Evicts a model from a tier, if it is not leased.
pub(crate) fn evict(gate: &Arc<Gate>, model: &Model, tier: usize) {
    gate.evict_idle(&[Seat::new(model, tier)], &EvictReason::Cleared);
}

/// Waits for what was left to other threads, clears, and looks whether everything was given back.
pub(crate) fn is_whole(gate: &Arc<Gate>) {
    loop {
        let thread = gate.io.state().spawned.pop();
        match thread {
            Some(thread) => thread.join().unwrap(),
            None => break,
        }
    }
    let models = gate.io.state().models.clone();
    for model in &models {
        for tier in 0..model.slots.len() {
            evict(gate, model, tier);
            assert_eq!(model.slots[tier].pins.count(), 0, "pins are left");
        }
    }
    let books = gate.books();
    assert_eq!(books.waiting(), 0, "the queue is not empty");
    assert_eq!(books.somewhere().count(), 0, "something is left");
    for account in &books.accounts {
        let left = (
            account.used(),
            account.staging_bytes(),
            account.working_bytes(),
        );
        assert_eq!(left, (0, 0, 0), "bytes count that do not exist");
        assert_eq!(account.resident().len(), 0);
    }
    let state = gate.io.state();
    assert!(state.there.is_empty());
    assert!(
        state.bytes.iter().all(|bytes| *bytes == 0),
        "bytes exist that nobody counts"
    );
    assert!(
        state.expected.iter().all(|bytes| *bytes == 0),
        "pages are kept for nobody"
    );
}
