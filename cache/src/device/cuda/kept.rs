//! What the pool keeps for loads that are expected: mapping memory takes the driver time, which a
//! model that streams through in parts would pay for every part.

/// Bytes that loads will come for, and those that wait for them.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Of loads that will come.
    expected: u64,
    /// Freed, and not given back to the device.
    kept: u64,
    /// Kept and given back unused, not told yet.
    given: u64,
}

impl Kept {
    pub(super) fn bytes(&self) -> u64 {
        self.kept
    }

    pub(super) fn take_given(&mut self) -> u64 {
        std::mem::take(&mut self.given)
    }

    pub(super) fn expect(&mut self, bytes: u64) {
        self.expected = self.expected.saturating_add(bytes);
    }

    /// Returns whether something is to be given back.
    pub(super) fn unexpect(&mut self, bytes: u64) -> bool {
        self.expected = self.expected.saturating_sub(bytes);
        self.give_back()
    }

    /// Takes what a load comes for, a part of it in the pool. Returns how much of that was kept, and
    /// whether something is to be given back.
    pub(super) fn take(&mut self, bytes: u64, in_pool: u64) -> (u64, bool) {
        self.expected = self.expected.saturating_sub(bytes);
        let recycled = self.kept.min(in_pool);
        self.kept -= recycled;
        (recycled, self.give_back())
    }

    /// Notes what a load had taken and gave back.
    pub(super) fn failed(&mut self, recycled: u64) {
        self.given += recycled;
    }

    /// Keeps of what was freed what a load will come for. Returns how much.
    pub(super) fn freed(&mut self, bytes: u64) -> u64 {
        let keep = bytes.min(self.expected - self.kept);
        self.kept += keep;
        keep
    }

    fn give_back(&mut self) -> bool {
        let excess = self.kept.saturating_sub(self.expected);
        self.kept -= excess;
        self.given += excess;
        excess > 0
    }
}
