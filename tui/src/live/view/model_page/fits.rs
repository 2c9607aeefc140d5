//! Whether a model would fit into a tier now.

use plimsoll_events::TierPicture;

use crate::inspect::prose::compact;
use crate::live::screen::theme::Role;
use crate::live::view::draw::Line;

/// Whether so many bytes would fit, and what would have to go. Near the truth: a tier counts whole
/// pages, and which models go is the policy's choice.
pub(super) fn fits(tier: &TierPicture, bytes: u64) -> Line {
    if bytes == 0 {
        return Line::default().faint("its size was not told");
    }
    if tier.budget_bytes == u64::MAX {
        return Line::of(Role::Good, "yes").faint(": no budget");
    }
    let free = tier.budget_bytes.saturating_sub(tier.used_bytes);
    let evictable = tier.used_bytes.saturating_sub(tier.pinned_bytes);
    let over = tier.used_bytes.saturating_sub(tier.budget_bytes);
    if bytes <= free {
        return Line::of(Role::Good, "yes")
            .faint(": needs ~")
            .text(compact(bytes))
            .faint(", free ")
            .text(compact(free));
    }
    if bytes > tier.budget_bytes {
        return Line::of(Role::Bad, "never")
            .faint(": needs ~")
            .text(compact(bytes))
            .faint(" of a budget of ")
            .text(compact(tier.budget_bytes));
    }
    let missing = (bytes - free).saturating_add(over);
    if missing <= evictable {
        return Line::of(Role::Warn, "if")
            .text(format!(" {} goes", compact(missing)))
            .faint(": free ")
            .text(compact(free))
            .faint(", evictable ")
            .text(compact(evictable));
    }
    Line::of(Role::Bad, "no")
        .faint(": short of ")
        .text(compact(missing - evictable))
        .faint("; free ")
        .text(compact(free))
        .faint(", evictable ")
        .text(compact(evictable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(used: u64, pinned: u64, budget: u64, bytes: u64) -> String {
        let tier = TierPicture {
            used_bytes: used << 30,
            pinned_bytes: pinned << 30,
            budget_bytes: budget.saturating_mul(1 << 30),
            ..TierPicture::default()
        };
        let words = fits(&tier, bytes << 30).0;
        words.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn it_says_what_is_missing() {
        assert_eq!(said(10, 4, 24, 14), "yes: needs ~14.00G, free 14.00G");
        assert_eq!(
            said(20, 4, 24, 14),
            "if 10.00G goes: free 4.00G, evictable 16.00G"
        );
        assert_eq!(
            said(20, 16, 24, 14),
            "no: short of 6.00G; free 4.00G, evictable 4.00G"
        );
        assert_eq!(
            said(0, 0, 8, 14),
            "never: needs ~14.00G of a budget of 8.00G"
        );
        // Above its budget as it is.
        assert_eq!(
            said(30, 10, 24, 14),
            "if 20.00G goes: free 0B, evictable 20.00G"
        );
        assert_eq!(said(30, 10, u64::MAX, 1), "yes: no budget");
    }
}
