//! The residency of one model in one tier: absent → loading → resident → evicting → absent.
//!
//! [`Phase::after`] is the only place that says what may follow what. It is pure and total: every
//! input is answered in every phase, and what may not happen is an answer too. A model has a phase
//! in each tier, so it is nowhere, in RAM, on a device, or in both.

/// Where a model is in its life in a tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not there. It counts no bytes.
    #[default]
    Absent,
    /// Its bytes are reserved and being moved in; `claims` leases wait for it.
    Loading {
        /// Leases that will hold it once it is there.
        claims: u32,
    },
    /// There. Leases pin it by a count of their own, without this state's lock.
    Resident,
    /// On its way out. Its bytes count until they are gone.
    Evicting,
}

/// What can happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Its load was admitted.
    Begin,
    /// A lease was admitted that needs it.
    Claim,
    /// A lease that waited for its load gave up.
    Unclaim,
    /// The load succeeded.
    Loaded,
    /// The load failed.
    Failed,
    /// It was chosen to go, and no lease pins it.
    Evict,
    /// Its memory is gone.
    Evicted,
}

/// The answer to an input that a phase does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{input:?} cannot happen to a model that is {phase:?}")]
pub struct Impossible {
    /// The phase.
    pub phase: Phase,
    /// The input.
    pub input: Input,
}

impl Phase {
    /// The phase after an input.
    ///
    /// # Errors
    /// [`Impossible`] where the input does not belong here; the phase stays.
    pub fn after(self, input: Input) -> Result<Phase, Impossible> {
        let phase = self;
        match (phase, input) {
            (Phase::Absent, Input::Begin) => Ok(Phase::Loading { claims: 0 }),
            (Phase::Loading { claims }, Input::Claim) if claims < u32::MAX => {
                Ok(Phase::Loading { claims: claims + 1 })
            }
            (Phase::Loading { claims }, Input::Unclaim) if claims > 0 => {
                Ok(Phase::Loading { claims: claims - 1 })
            }
            (Phase::Loading { .. }, Input::Loaded) => Ok(Phase::Resident),
            (Phase::Loading { .. }, Input::Failed) => Ok(Phase::Absent),
            (Phase::Resident, Input::Evict) => Ok(Phase::Evicting),
            (Phase::Evicting, Input::Evicted) => Ok(Phase::Absent),
            (Phase::Resident, Input::Claim) => Ok(Phase::Resident),
            _ => Err(Impossible { phase, input }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] = [
        Phase::Absent,
        Phase::Loading { claims: 0 },
        Phase::Loading { claims: 1 },
        Phase::Loading { claims: u32::MAX },
        Phase::Resident,
        Phase::Evicting,
    ];

    const INPUTS: [Input; 7] = [
        Input::Begin,
        Input::Claim,
        Input::Unclaim,
        Input::Loaded,
        Input::Failed,
        Input::Evict,
        Input::Evicted,
    ];

    #[test]
    fn what_may_follow_is_this_and_nothing_else() {
        use Input::*;
        use Phase::*;
        let allowed = [
            (Absent, Begin, Loading { claims: 0 }),
            (Loading { claims: 0 }, Claim, Loading { claims: 1 }),
            (Loading { claims: 1 }, Claim, Loading { claims: 2 }),
            (Loading { claims: 1 }, Unclaim, Loading { claims: 0 }),
            (
                Loading { claims: u32::MAX },
                Unclaim,
                Loading {
                    claims: u32::MAX - 1,
                },
            ),
            (Loading { claims: 0 }, Loaded, Resident),
            (Loading { claims: 1 }, Loaded, Resident),
            (Loading { claims: u32::MAX }, Loaded, Resident),
            (Loading { claims: 0 }, Failed, Absent),
            (Loading { claims: 1 }, Failed, Absent),
            (Loading { claims: u32::MAX }, Failed, Absent),
            (Resident, Claim, Resident),
            (Resident, Evict, Evicting),
            (Evicting, Evicted, Absent),
        ];
        for phase in PHASES {
            for input in INPUTS {
                let wanted = allowed
                    .iter()
                    .find(|(from, on, _)| (*from, *on) == (phase, input))
                    .map(|(.., to)| *to)
                    .ok_or(Impossible { phase, input });
                assert_eq!(phase.after(input), wanted, "{phase:?} {input:?}");
            }
        }
    }

    #[test]
    fn every_phase_can_be_reached_and_left_again() {
        let mut reached = vec![Phase::Absent];
        let mut at = 0;
        while at < reached.len() {
            for input in INPUTS {
                let next = reached[at].after(input);
                let within = !matches!(next, Ok(Phase::Loading { claims }) if claims > 2);
                if let Ok(next) = next
                    && within
                    && !reached.contains(&next)
                {
                    reached.push(next);
                }
            }
            at += 1;
        }
        assert_eq!(reached.len(), 6, "{reached:?}");
        for phase in reached {
            let onward = [Input::Failed, Input::Evict, Input::Evicted, Input::Begin];
            assert!(onward.iter().any(|input| phase.after(*input).is_ok()));
        }
    }
}
