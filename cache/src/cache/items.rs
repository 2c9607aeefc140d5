//! What is leased for what is asked for: which models, or parts of them, where.

use std::sync::Arc;

use super::partial::{Kept, Partial, Streaming};
use super::patched::Patched;
use super::shapes::{Shape, Streamed};
use super::shared::Shared;
use super::wanted::{Wanted, Way};
use super::{Known, Seat};
use crate::books::{Ask, Grant, Holder, Io as _, RAM, Reserved};
use crate::error::Error;
use crate::lease::{Base, Held, Item as LeasedItem, Lease, Patches};
use crate::model::Model;

/// A model of a request, looked up.
pub(super) struct Item {
    pub(super) model: Model,
    pub(super) tiers: Vec<usize>,
    working: u64,
    pub(super) patched: Option<Arc<Patched>>,
    pub(super) way: Way,
    /// Where it is for room to say, how far this has come: each device of choice is tried with merged
    /// patches, then with patches beside, and at last whichever has room for these.
    tried: usize,
    pub(super) partial: Option<Partial>,
    pub(super) shape: Shape,
    /// What a device of choice cannot hold.
    pub(super) rest: Option<Model>,
}

impl Item {
    /// Whether it asks for no more than a model as it is.
    fn is_plain(&self) -> bool {
        self.patched.is_none() && self.rest.is_none() && matches!(self.shape, Shape::Whole)
    }

    /// Whether room says how its patches come, and may say otherwise yet.
    pub(super) fn is_trying(&self) -> bool {
        let merged = self.patched.as_ref().map(|patched| &patched.merged);
        let is_by_room = self.way == Way::ByRoom && merged.is_some_and(Option::is_some);
        is_by_room && self.tried < 2 * self.tiers.len()
    }

    /// Whether patches are leased beside it, as far as it is known.
    pub(super) fn is_beside(&self) -> bool {
        match self.way {
            Way::Merged => false,
            Way::Beside => true,
            Way::ByRoom => self.tried % 2 == 1 || self.tried >= 2 * self.tiers.len(),
        }
    }

    /// The devices on which it is asked for now.
    fn tiers_now(&self) -> Vec<usize> {
        match self.is_trying() {
            true => vec![self.tiers[self.tried / 2]],
            false => self.tiers.clone(),
        }
    }

    /// The patches, as they are leased now.
    pub(super) fn patches(&self) -> Vec<&Model> {
        let Some(patched) = &self.patched else {
            return Vec::new();
        };
        match &patched.merged {
            Some(merged) if !self.is_beside() => vec![merged],
            _ => patched.patches.iter().map(|one| &one.factors).collect(),
        }
    }

    /// What it is called in errors and events.
    pub(super) fn name(&self) -> &str {
        let patched = self.patched.as_ref();
        patched.map_or(self.model.name(), |patched| &patched.name)
    }

    /// The model, or the part of it, that says where the others are granted.
    fn leader(&self) -> &Model {
        match &self.shape {
            Shape::Whole => &self.model,
            Shape::Most(most) => most,
            Shape::Partial(streamed) => &streamed.division.parts[0],
        }
    }

    /// Everything that it leases, with whether that has to be in RAM.
    pub(super) fn models(&self, lacks: impl Fn(&Model) -> bool) -> Vec<(&Model, bool)> {
        let mut models = vec![(self.leader(), false)];
        models.extend(self.rest.iter().map(|rest| (rest, true)));
        let patches = self.patches().into_iter();
        models.extend(patches.map(|model| (model, lacks(model))));
        models
    }
}

impl Shared {
    /// Looks up what is asked for.
    pub(super) fn items(&self, wanted: &[Wanted<'_>]) -> Result<Vec<Item>, Error> {
        if wanted.is_empty() {
            return Err(Error::NoModel);
        }
        wanted.iter().map(|one| self.item(one)).collect()
    }

    fn item(&self, wanted: &Wanted<'_>) -> Result<Item, Error> {
        let no_device = || Error::NoDevice {
            model: Some(wanted.model.name().to_owned()),
        };
        let mut tiers = Vec::with_capacity(1 + wanted.terms.others.len());
        tiers.push(self.tier(wanted.terms.first).ok_or_else(no_device)?);
        for other in &wanted.terms.others {
            tiers.push(self.tier(*other).ok_or_else(no_device)?);
        }
        let patches = &self.patches;
        let patched = match wanted.terms.patches.is_empty() {
            true => None,
            false => patches.of(wanted.model, &wanted.terms.patches, wanted.terms.strictness)?,
        };
        if let Some(patched) = &patched {
            patched.allows(wanted.terms.way, wanted.model)?;
        }
        let mut item = Item {
            model: wanted.model.clone(),
            tiers,
            working: wanted.terms.working,
            patched,
            way: wanted.terms.way,
            tried: 0,
            partial: wanted.terms.partial.clone(),
            shape: Shape::Whole,
            rest: None,
        };
        self.shape(&mut item)?;
        Ok(item)
    }

    /// Has a request try the next way for patches to come.
    pub(super) fn try_next(&self, items: &mut [Item]) -> Result<(), Error> {
        for item in items.iter_mut().filter(|item| item.is_trying()) {
            item.tried += 1;
            self.shape(item)?;
        }
        Ok(())
    }

    /// Leaves an item to the devices of choice that are left without this one, where there may be
    /// room for merged patches again.
    pub(super) fn leave_out(&self, item: &mut Item, tier: usize) -> Result<(), Error> {
        item.tiers.retain(|one| *one != tier);
        item.tried = 0;
        self.shape(item)
    }

    pub(super) fn asks(&self, items: &[Item]) -> Vec<Ask<Known>> {
        let mut asks = Vec::with_capacity(items.len());
        for item in items {
            let leader = asks.len();
            let models = item.models(|model| self.lacks(&item.tiers, model));
            for (at, (model, in_ram)) in models.into_iter().enumerate() {
                let tiers = match in_ram {
                    true => vec![RAM],
                    false => item.tiers_now(),
                };
                let mut ask = Ask::new(self.entry(model), tiers);
                if at == 0 {
                    ask.working = item.working;
                    if let Shape::Partial(streamed) = &item.shape {
                        (ask.pool, ask.staging) = (streamed.pool, streamed.staging);
                    }
                } else if !in_ram {
                    ask.follows = Some(leader);
                }
                asks.push(ask);
            }
        }
        asks
    }

    /// Makes a lease of what was granted. What else it can have of partial models still has to be
    /// brought, by [`Lease::settle_in`].
    pub(super) fn hand_out(
        self: &Arc<Self>,
        items: &[Item],
        grant: Grant<Known>,
        holder: Option<Arc<Holder>>,
    ) -> Lease {
        let now_ns = self.gate.io.now_ns();
        let mut reserved = grant.reserved;
        let held = grant.seats.into_iter().map(|(seat, hit)| {
            seat.slot().leased(now_ns, hit);
            Held::new(seat)
        });
        let held: Vec<Held> = held.collect();
        let mut leased: Vec<LeasedItem> = Vec::new();
        if !items.iter().all(Item::is_plain) {
            let mut asked = grant.asked.into_iter();
            for item in items {
                let leader = asked.next().unwrap_or(0);
                let tier = held[leader].seat.tier;
                let rest = item.rest.as_ref().and_then(|_| asked.next());
                let patches = item.patched.as_ref().map(|patched| {
                    let seats: Vec<usize> = asked.by_ref().take(item.patches().len()).collect();
                    let merged = patched.merged.is_some() && !item.is_beside();
                    let patched = Arc::clone(patched);
                    match (merged, seats.first()) {
                        (true, Some(seat)) => Patches::Merged(patched, *seat),
                        _ => Patches::Beside(patched, seats),
                    }
                });
                let base = match &item.shape {
                    Shape::Whole | Shape::Most(_) => Base::There(leader),
                    Shape::Partial(streamed) => {
                        let seat = &held[leader].seat;
                        let own = own_pool(streamed, seat.tier, &mut reserved);
                        Base::Partly(self.streaming(item, streamed, seat, own, &holder))
                    }
                };
                let item = LeasedItem {
                    model: item.model.clone(),
                    tier,
                    base,
                    rest,
                    patches,
                };
                if !leased.iter().any(|known| known.is_same(&item)) {
                    leased.push(item);
                }
            }
        }
        Lease::new(Arc::clone(self), held, leased, reserved, holder)
    }

    fn streaming(
        &self,
        item: &Item,
        streamed: &Streamed,
        first: &Seat,
        reserved: Reserved,
        holder: &Option<Arc<Holder>>,
    ) -> Streaming {
        let tier = first.tier;
        let rest = streamed.division.parts[1..].iter();
        let rest = rest.map(|part| Seat::new(&self.entry(part), tier));
        let seats = std::iter::once(first.clone()).chain(rest).collect();
        let whole = Seat::new(&self.entry(&item.model), tier);
        let kept = Kept {
            division: Arc::clone(&streamed.division),
            tier,
            reserved,
            staging: streamed.staging,
            most: streamed.most,
            is_firm: item.partial.as_ref().is_some_and(|partial| partial.is_firm),
            holder: holder.clone(),
        };
        Streaming::new(&self.gate, whole, seats, kept)
    }
}

/// Takes the part of what a lease keeps that is for one pool: it ends with that.
fn own_pool(streamed: &Streamed, tier: usize, reserved: &mut Reserved) -> Reserved {
    let mut own = Reserved {
        working: vec![0; reserved.pools.len()],
        pools: vec![0; reserved.pools.len()],
    };
    let staging = if tier == RAM { 0 } else { streamed.staging };
    for (tier, bytes) in [(tier, streamed.pool), (RAM, staging)] {
        own.pools[tier] += bytes;
        reserved.pools[tier] -= bytes;
    }
    own
}
