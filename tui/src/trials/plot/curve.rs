//! The picture of a search: memory and time over the value of the knob, one above the other.

use plimsoll_trials::Measure;
use plimsoll_trials::compare::Summary;
use plimsoll_trials::number::amount;
use plimsoll_trials::search::{Point, Search};

use super::axis::Axis;
use super::picture::{
    Anchor, FAINT, GRID, GROUND, ORANGE, Picture, SKY, TEXT, VERMILION, columns, short,
};
use super::{EDGE, SIZE, ends};

/// Left and right ends of the curves.
const SIDES: (f64, f64) = (96.0, 900.0);
/// Upper and lower ends of the two panels.
const PANELS: [(f64, f64); 2] = [(96.0, 296.0), (346.0, 546.0)];

/// One of the two measures of a point.
type Part = fn(&Point) -> Option<&Summary>;

/// The search as an SVG picture.
#[must_use]
pub fn search(search: &Search) -> String {
    let comparison = &search.comparison;
    let title = format!(
        "{} in `{}`: {} and {}, {} rounds",
        search.knob, search.from, comparison.memory, comparison.time, comparison.rounds
    );
    let mut picture = Picture::new(SIZE.0, SIZE.1, &title, &search.why);
    let fitting = columns(SIZE.0 - 2.0 * EDGE);
    // The heading is a quarter larger.
    picture.heading((EDGE, 32.0), &short(&title, fitting * 4 / 5));
    let what = short(&comparison.what, fitting);
    picture.text((EDGE, 52.0), Anchor::Start, FAINT, &what);
    let parts: [Part; 2] = [|point| point.memory.as_ref(), |point| point.time.as_ref()];
    let measures = [comparison.memory, comparison.time];
    for ((measure, part), (top, bottom)) in measures.into_iter().zip(parts).zip(PANELS) {
        let reference = comparison.profiles.first();
        let panel = Panel {
            search,
            measure,
            part,
            reference: reference.and_then(|first| first.measures.get(&measure)),
            top,
            bottom,
        };
        panel.draw(&mut picture);
    }
    for (at, point) in search.points.iter().enumerate() {
        let place = (panel_x(search, at), PANELS[1].1 + 20.0);
        let colour = match search.winner == Some(point.value) {
            true => ORANGE,
            false => FAINT,
        };
        let value = short(&search.counts.text(point.value), 10);
        picture.text(place, Anchor::Middle, colour, &value);
    }
    let below = format!(
        "dashed: `{}`, the reference; ring: the winner; cross: not in force; bars: least to most",
        search.from
    );
    let place = (EDGE, SIZE.1 - 22.0);
    picture.text(place, Anchor::Start, FAINT, &short(&below, fitting));
    picture.done()
}

/// Values lie evenly: they are powers, and 0 among them has no logarithm.
fn panel_x(search: &Search, at: usize) -> f64 {
    let steps = search.points.len().saturating_sub(1).max(1) as f64;
    let inset = 24.0;
    let width = SIDES.1 - SIDES.0 - 2.0 * inset;
    match search.points.len() {
        1 => SIDES.0 + inset + width / 2.0,
        _ => SIDES.0 + inset + at as f64 / steps * width,
    }
}

/// One of the two.
struct Panel<'a> {
    search: &'a Search,
    measure: Measure,
    part: Part,
    reference: Option<&'a Summary>,
    top: f64,
    bottom: f64,
}

impl Panel<'_> {
    fn y(&self, axis: &Axis, value: f64) -> f64 {
        self.bottom - axis.share(value) * (self.bottom - self.top)
    }

    fn draw(&self, picture: &mut Picture) {
        let known: Vec<(usize, &Point, &Summary)> = self
            .search
            .points
            .iter()
            .enumerate()
            .filter_map(|(at, point)| Some((at, point, (self.part)(point)?)))
            .collect();
        let all = known.iter().map(|(_, _, summary)| *summary);
        let axis = Axis::over(self.measure, all.chain(self.reference).flat_map(ends));
        for (share, number) in axis.ticks() {
            let y = self.bottom - share * (self.bottom - self.top);
            picture.path(&[(SIDES.0, y), (SIDES.1, y)], GRID, 1.0, "");
            let place = (SIDES.0 - 8.0, y + 4.0);
            picture.text(place, Anchor::End, FAINT, &number);
        }
        picture.text((EDGE, self.top - 14.0), Anchor::Start, TEXT, axis.name());
        if let Some(reference) = self.reference {
            let y = self.y(&axis, reference.median);
            let text = amount(self.measure, reference.median);
            picture.begin(&format!("{}: {} {text}", self.search.from, self.measure));
            picture.path(&[(SIDES.0, y), (SIDES.1, y)], FAINT, 1.5, "6 4");
            picture.end();
        }
        let in_force = known
            .iter()
            .filter(|(_, point, _)| point.left_out.is_none());
        let line: Vec<(f64, f64)> = in_force
            .map(|(at, _, summary)| (panel_x(self.search, *at), self.y(&axis, summary.median)))
            .collect();
        picture.path(&line, SKY, 1.5, "");
        for (at, point, summary) in known {
            self.draw_point(picture, &axis, panel_x(self.search, at), point, summary);
        }
    }

    fn draw_point(
        &self,
        picture: &mut Picture,
        axis: &Axis,
        x: f64,
        point: &Point,
        summary: &Summary,
    ) {
        let y = self.y(axis, summary.median);
        let (top, bottom) = (self.y(axis, summary.max), self.y(axis, summary.min));
        let left_out = point.left_out.as_deref();
        let left_out = left_out.map_or(String::new(), |why| format!("; left out: {why}"));
        picture.begin(&format!(
            "{} = {}: {} {} ({} to {}){left_out}",
            self.search.knob,
            self.search.counts.text(point.value),
            self.measure,
            amount(self.measure, summary.median),
            amount(self.measure, summary.min),
            amount(self.measure, summary.max)
        ));
        if point.left_out.is_some() {
            super::draw_mark(picture, (x, y), super::Mark::Cross, GROUND, VERMILION);
        } else {
            picture.path(&[(x, top), (x, bottom)], SKY, 1.0, "");
            if self.search.winner == Some(point.value) {
                picture.circle((x, y), 10.0, "none", ORANGE);
            }
            picture.circle((x, y), 4.5, SKY, SKY);
        }
        picture.end();
    }
}
