//! Questions before something is done: what it would do, and what it cost last time.

use malloc_stats::{Metric, Size};
use plimsoll_events::Request;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Clear, Widget};

use super::chrome::frame;
use super::theme::{Role, Theme};
use crate::decision::seconds;
use crate::inspect::prose::lasting;
use crate::live::state::{State, What};
use crate::live::view::put;

/// A question.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    title: &'static str,
    lines: Vec<String>,
    /// What was typed, where something has to be.
    pub(super) input: Option<String>,
    /// What was wrong with what was typed.
    wrong: Option<String>,
    then: Then,
}

#[derive(Debug, Clone)]
enum Then {
    Request(Request),
    /// Of one of these tiers.
    Budget {
        tiers: Vec<String>,
    },
    Quit,
}

/// What an answered question leads to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answered {
    Request(Request),
    Quit,
}

impl Prompt {
    fn asking(title: &'static str, lines: Vec<String>, then: Then) -> Prompt {
        Prompt {
            title,
            lines,
            input: None,
            wrong: None,
            then,
        }
    }

    /// Whether to leave, though something would end by it.
    pub(super) fn quit(why: &str) -> Prompt {
        Prompt::asking("LEAVE", vec![why.to_owned()], Then::Quit)
    }

    /// Whether to ask freed memory back.
    pub(super) fn trim(state: &State) -> Prompt {
        let walked = state
            .inspection()
            .and_then(|look| look.heap.as_ref())
            .map(|heap| heap.trim.releasable);
        let told = state.vitals.allocator.as_ref();
        let told = told.map(|told| {
            told.value
                .cached_resident
                .at_best(malloc_stats::Grade::Upper)
        });
        let gain = walked.or(told).unwrap_or(Metric::Unavailable);
        let mut lines = vec![format!(
            "Ask the allocator to give free memory back: {gain}."
        )];
        let mut earlier = state.decisions.iter().rev();
        let last = earlier.find_map(|one| match &one.what {
            What::Reclaim(done) if done.settled.is_none() => Some((one.at_us, done)),
            _ => None,
        });
        lines.push(match last {
            Some((at_us, done)) => format!(
                "Last time ({} ago): {} gained in {}.",
                lasting(state.at_us.saturating_sub(at_us) as f64 / 1e6),
                done.gain,
                seconds(done.took_us)
            ),
            None => "It was not done before. It walks the whole heap under its locks.".to_owned(),
        });
        let settled = state
            .decisions
            .iter()
            .rev()
            .find_map(|one| match &one.what {
                What::Reclaim(done) => done.settled.map(|settled| (done.gain, settled)),
                _ => None,
            });
        if let Some((gain, settled)) = settled {
            let left = Size(settled.net_bytes.unsigned_abs());
            let sign = if settled.net_bytes < 0 { "-" } else { "" };
            lines.push(format!(
                "Of {gain} gained once, {sign}{left} was left after {} s.",
                settled.after_s
            ));
        }
        Prompt::asking("TRIM", lines, Then::Request(Request::Trim))
    }

    /// Whether to evict a model, or to drop it.
    pub(super) fn evict(state: &State, model: &str, drop: bool) -> Prompt {
        let request = if drop {
            Request::Drop {
                model: model.to_owned(),
            }
        } else {
            Request::Evict {
                model: model.to_owned(),
                tier: None,
            }
        };
        let mut lines = vec![if drop {
            format!("Drop {model}: it goes now, or when the last lease of it ends.")
        } else {
            format!("Evict {model} from every tier where no lease holds it.")
        }];
        if let Some(row) = state.models.get(model) {
            for place in &row.places {
                let back = place.reload_us.or(row.reload_us.get(&place.tier).copied());
                let back = back.map_or("not known".to_owned(), seconds);
                lines.push(format!(
                    "{}: {} there, {} leases; to bring it back took {back}.",
                    place.tier,
                    Size(place.charged_bytes),
                    place.leases
                ));
            }
            if let Some(moved) = row.moved.as_ref().filter(|moved| !moved.came) {
                lines.push(format!(
                    "Last time: {} freed, {} returned, in {}.",
                    Size(moved.bytes),
                    moved.returned,
                    seconds(moved.took_us)
                ));
            }
        }
        let title = if drop { "DROP" } else { "EVICT" };
        Prompt::asking(title, lines, Then::Request(request))
    }

    /// Which budget to give a tier.
    pub(super) fn budget(state: &State) -> Prompt {
        let mut lines = Vec::new();
        for tier in &state.tiers {
            let budget = match tier.budget_bytes {
                u64::MAX => "none".to_owned(),
                bytes => Size(bytes).to_string(),
            };
            let simulated = if tier.simulated { " (simulated)" } else { "" };
            lines.push(format!(
                "{}{simulated}: budget {budget}; {} used, {} of it pinned.",
                tier.tier,
                Size(tier.used_bytes),
                Size(tier.pinned_bytes)
            ));
        }
        let limits = state.vitals.limits.as_ref();
        if let Some(room) = limits.and_then(|limits| limits.value.room()) {
            let (unused, bound) = (room.unused, room.bound);
            lines.push(format!("Of RAM {unused} more is left below {bound}."));
        }
        lines.push("What no longer fits and is not leased is evicted at once.".to_owned());
        lines.push(match state.tiers.as_slice() {
            [] | [_] => "New budget, such as 1200MiB, or auto:".to_owned(),
            [first, .., last] => format!(
                "New budget of {}, such as 1200MiB, or auto; of another: {} 1200MiB",
                first.tier, last.tier
            ),
        });
        Prompt {
            input: Some(String::new()),
            ..Prompt::asking(
                "BUDGET",
                lines,
                Then::Budget {
                    tiers: state.tiers.iter().map(|tier| tier.tier.clone()).collect(),
                },
            )
        }
    }

    /// A yes, or the end of what was typed. `None` leaves the question open.
    pub(super) fn answered(&mut self) -> Option<Answered> {
        match &self.then {
            Then::Quit => Some(Answered::Quit),
            Then::Request(request) => Some(Answered::Request(request.clone())),
            Then::Budget { tiers } => {
                let typed = self.input.as_deref().unwrap_or_default();
                match budget(tiers, typed) {
                    Ok(request) => Some(Answered::Request(request)),
                    Err(wrong) => {
                        self.wrong = Some(wrong);
                        None
                    }
                }
            }
        }
    }

    /// Draws itself over what is there.
    pub(super) fn draw(&self, theme: &Theme, area: Rect, buffer: &mut Buffer) {
        let rows = self.lines.len() as u16 + 3 + u16::from(self.input.is_some());
        let width = area.width.min(84);
        let height = (rows + 1).min(area.height);
        let place = Rect {
            x: area.x + (area.width - width) / 2,
            y: area.y + (area.height - height) / 2,
            width,
            height,
        };
        Clear.render(place, buffer);
        let inner = frame(theme, (None, self.title, ""), true, place, buffer);
        let (x, room) = (inner.x + 1, inner.width.saturating_sub(2));
        let mut y = inner.y;
        for line in &self.lines {
            put(buffer, (x, y), room, line, theme, Role::Text);
            y += 1;
        }
        let mut answer = "y yes   n no";
        if let Some(input) = &self.input {
            let cursor = if theme.unicode { "▏" } else { "_" };
            put(
                buffer,
                (x, y),
                room,
                &format!("> {input}{cursor}"),
                theme,
                Role::Strong,
            );
            y += 1;
            answer = "enter gives it   esc leaves it";
        }
        if let Some(wrong) = &self.wrong {
            put(buffer, (x, y), room, wrong, theme, Role::Bad);
        }
        put(
            buffer,
            (x, inner.bottom().saturating_sub(1)),
            room,
            answer,
            theme,
            Role::Key,
        );
    }
}

/// What was typed as a budget: a size or `auto`, and the tier before it where it is not the first.
fn budget(tiers: &[String], typed: &str) -> Result<Request, String> {
    let typed = typed.trim();
    let named = tiers.iter().find_map(|tier| {
        let rest = typed.strip_prefix(tier.as_str())?;
        rest.starts_with(' ').then(|| (tier, rest.trim()))
    });
    let (tier, size) = match (named, tiers.first()) {
        (Some(named), _) => named,
        (None, Some(first)) => (first, typed),
        (None, None) => return Err("there is no tier".to_owned()),
    };
    let bytes = match size {
        "auto" => None,
        size => {
            let size = size
                .parse::<Size>()
                .map_err(|error| format!("{error}; or auto"))?;
            Some(size.0)
        }
    };
    Ok(Request::Budget {
        tier: tier.clone(),
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_of_the_first_tier_or_of_the_one_that_is_named() {
        let tiers = ["ram".to_owned(), "gpu 0".to_owned()];
        let asked = |typed| match budget(&tiers, typed) {
            Ok(Request::Budget { tier, bytes }) => Some((tier, bytes)),
            _ => None,
        };
        assert_eq!(asked(" 1MiB "), Some(("ram".to_owned(), Some(1 << 20))));
        assert_eq!(asked("gpu 0 auto"), Some(("gpu 0".to_owned(), None)));
        for wrong in ["", "gpu", "gpu 1 1MiB", "ram", "-1"] {
            assert_eq!(asked(wrong), None, "{wrong}");
        }
    }
}
