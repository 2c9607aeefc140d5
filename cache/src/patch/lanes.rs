//! Loops over many numbers, made for the widest registers that the processor has.

/// A loop that is the same whatever the registers, to the bit: it multiplies and adds in steps of
/// their own, which no compiler fuses unasked.
///
/// Everything in it must be inlined, so that it is compiled anew for each width.
pub(super) trait Loop {
    type Gives;

    /// `LANES` is how many numbers of double precision a register holds.
    fn run<const LANES: usize>(self) -> Self::Gives;
}

/// Runs it in the widest registers.
#[cfg(target_arch = "x86_64")]
pub(super) fn widest<L: Loop>(work: L) -> L::Gives {
    #[target_feature(enable = "avx2")]
    fn four<L: Loop>(work: L) -> L::Gives {
        work.run::<4>()
    }
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn eight<L: Loop>(work: L) -> L::Gives {
        work.run::<8>()
    }
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
    {
        // SAFETY: the processor has all of them.
        unsafe { eight(work) }
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        unsafe { four(work) }
    } else {
        work.run::<2>()
    }
}

/// Runs it in the registers that all processors of this kind have.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn widest<L: Loop>(work: L) -> L::Gives {
    work.run::<2>()
}
