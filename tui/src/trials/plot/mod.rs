//! Memory against time, as a picture: each profile a point with the range of its runs, the front a
//! line, the recommended profile ringed. And a search: both over the value of the knob.
//!
//! | file | what |
//! |---|---|
//! | `axis` | where a number lies, and ticks |
//! | `curve` | the picture of a search |
//! | `labels` | names beside points |
//! | `picture` | shapes and text as SVG |

mod axis;
mod curve;
mod labels;
mod picture;
#[cfg(test)]
mod tests;

use plimsoll_trials::Measure;
use plimsoll_trials::compare::{Compared, Comparison, Summary};
use plimsoll_trials::number::{amount, ratio};

use axis::Axis;
use labels::{LINE, Rectangle};
use picture::{
    Anchor, FAINT, GRID, GROUND, ORANGE, Picture, SKY, TEXT, VERMILION, columns, pixels, short,
};

pub use curve::search;

/// Pixels of the picture.
const SIZE: (f64, f64) = (960.0, 620.0);
/// Where points are.
const ROOM: Rectangle = Rectangle {
    x: 84.0,
    y: 84.0,
    width: 846.0,
    height: 416.0,
};
const EDGE: f64 = 24.0;
/// Columns of a name.
const LONGEST_NAME: usize = 32;
/// Names that are written; further ones appear when pointed at.
const MOST_NAMES: usize = 40;

/// A profile on the picture.
struct Dot<'a> {
    one: &'a Compared,
    is_reference: bool,
    is_taken: bool,
    memory: &'a Summary,
    time: &'a Summary,
    at: (f64, f64),
    /// From the least run to the most: left, right, top, bottom.
    bars: [f64; 4],
}

impl Dot<'_> {
    fn rectangles(&self) -> [Rectangle; 2] {
        let [left, right, top, bottom] = self.bars;
        let (x, y) = self.at;
        let across = Rectangle {
            x: left,
            y: y - 1.0,
            width: right - left,
            height: 2.0,
        };
        let up = Rectangle {
            x: x - 1.0,
            y: top,
            width: 2.0,
            height: bottom - top,
        };
        [across, up]
    }
}

/// The comparison as an SVG picture.
#[must_use]
pub fn svg(comparison: &Comparison) -> String {
    let (memory, time) = (comparison.memory, comparison.time);
    let known: Vec<(usize, &Compared, &Summary, &Summary)> = comparison
        .profiles
        .iter()
        .enumerate()
        .filter_map(|(at, one)| {
            Some((
                at,
                one,
                one.measures.get(&memory)?,
                one.measures.get(&time)?,
            ))
        })
        .collect();
    let y = Axis::over(memory, known.iter().flat_map(|known| ends(known.2)));
    let x = Axis::over(time, known.iter().flat_map(|known| ends(known.3)));
    let dots = known.iter().map(|(at, one, memory, time)| Dot {
        one,
        is_reference: *at == 0,
        is_taken: comparison.recommendation.profile == Some(*at),
        memory,
        time,
        at: (across(&x, time.median), up(&y, memory.median)),
        bars: [
            across(&x, time.min),
            across(&x, time.max),
            up(&y, memory.max),
            up(&y, memory.min),
        ],
    });
    let dots: Vec<Dot<'_>> = dots.collect();

    let title = format!("{memory} against {time}, {} rounds", comparison.rounds);
    let advice = comparison.recommendation.sentences.join("; ");
    let mut picture = Picture::new(SIZE.0, SIZE.1, &title, &advice);
    picture.heading((EDGE, 32.0), &title);
    let fitting = columns(SIZE.0 - 2.0 * EDGE);
    let what = short(&comparison.what, fitting);
    picture.text((EDGE, 52.0), Anchor::Start, FAINT, &what);
    draw_axes(&mut picture, &x, &y);
    draw_front(&mut picture, &dots);
    for dot in &dots {
        draw_dot(&mut picture, dot, memory, time);
    }
    draw_names(&mut picture, &dots);
    draw_legend(&mut picture);
    if let Some(first) = comparison.recommendation.sentences.first() {
        let place = (EDGE, SIZE.1 - 18.0);
        picture.text(place, Anchor::Start, TEXT, &short(first, fitting));
    }
    picture.done()
}

/// All of a bar.
fn ends(summary: &Summary) -> [f64; 3] {
    [summary.min, summary.median, summary.max]
}

fn across(axis: &Axis, value: f64) -> f64 {
    ROOM.x + axis.share(value) * ROOM.width
}

fn up(axis: &Axis, value: f64) -> f64 {
    ROOM.y + (1.0 - axis.share(value)) * ROOM.height
}

fn draw_axes(picture: &mut Picture, x: &Axis, y: &Axis) {
    let (bottom, right) = (ROOM.y + ROOM.height, ROOM.x + ROOM.width);
    for (share, number) in x.ticks() {
        let place = ROOM.x + share * ROOM.width;
        picture.path(&[(place, ROOM.y), (place, bottom)], GRID, 1.0, "");
        picture.text((place, bottom + 18.0), Anchor::Middle, FAINT, &number);
    }
    for (share, number) in y.ticks() {
        let place = ROOM.y + (1.0 - share) * ROOM.height;
        picture.path(&[(ROOM.x, place), (right, place)], GRID, 1.0, "");
        picture.text((ROOM.x - 8.0, place + 4.0), Anchor::End, FAINT, &number);
    }
    picture.text((EDGE, ROOM.y - 12.0), Anchor::Start, TEXT, y.name());
    picture.text((right, bottom + 38.0), Anchor::End, TEXT, x.name());
}

/// Steps along what is least of both: right of them and above them somebody is better.
fn draw_front(picture: &mut Picture, dots: &[Dot<'_>]) {
    let mut front: Vec<(f64, f64)> = dots
        .iter()
        .filter(|dot| dot.one.on_front)
        .map(|dot| dot.at)
        .collect();
    front.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for (x, y) in front {
        match steps.last() {
            None => steps.extend([(x, ROOM.y), (x, y)]),
            // Pixels grow downwards. One that is on the front by noise alone makes no step.
            Some((_, lowest)) if y > *lowest => {
                let lowest = *lowest;
                steps.extend([(x, lowest), (x, y)]);
            }
            Some(_) => {}
        }
    }
    if let Some((_, lowest)) = steps.last().copied() {
        steps.push((ROOM.x + ROOM.width, lowest));
        picture.begin("Pareto front: nobody takes less memory and less time");
        picture.path(&steps, SKY, 1.5, "6 4");
        picture.end();
    }
}

fn draw_dot(picture: &mut Picture, dot: &Dot<'_>, memory: Measure, time: Measure) {
    let colour = match (&dot.one.left_out, dot.one.on_front) {
        (Some(_), _) => VERMILION,
        (None, true) => SKY,
        (None, false) => FAINT,
    };
    picture.begin(&hover(dot, memory, time));
    let [left, right, top, bottom] = dot.bars;
    picture.path(&[(left, dot.at.1), (right, dot.at.1)], colour, 1.0, "");
    picture.path(&[(dot.at.0, top), (dot.at.0, bottom)], colour, 1.0, "");
    if dot.is_taken {
        picture.circle(dot.at, 11.0, "none", ORANGE);
    }
    let fill = if dot.one.on_front { colour } else { GROUND };
    draw_mark(picture, dot.at, mark(dot), fill, colour);
    picture.end();
}

/// The shapes that tell profiles apart without colours.
#[derive(Clone, Copy)]
enum Mark {
    Circle,
    Diamond,
    Cross,
}

fn mark(dot: &Dot<'_>) -> Mark {
    match dot {
        _ if dot.one.left_out.is_some() => Mark::Cross,
        _ if dot.is_reference => Mark::Diamond,
        _ => Mark::Circle,
    }
}

fn draw_mark(picture: &mut Picture, (x, y): (f64, f64), mark: Mark, fill: &str, stroke: &str) {
    match mark {
        Mark::Circle => picture.circle((x, y), 5.0, fill, stroke),
        Mark::Diamond => {
            let corners = [(x, y - 7.0), (x + 7.0, y), (x, y + 7.0), (x - 7.0, y)];
            picture.polygon(&corners, fill, stroke);
        }
        Mark::Cross => {
            picture.path(&[(x - 5.0, y - 5.0), (x + 5.0, y + 5.0)], stroke, 2.0, "");
            picture.path(&[(x - 5.0, y + 5.0), (x + 5.0, y - 5.0)], stroke, 2.0, "");
        }
    }
}

/// What a point shows when it is pointed at.
fn hover(dot: &Dot<'_>, memory: Measure, time: Measure) -> String {
    let one = |measure: Measure, summary: &Summary| {
        let times = summary.ratio.map(ratio);
        let times = times.map_or(String::new(), |times| format!(", {times}"));
        format!(
            "{measure} {}{} ({} to {}{times})",
            summary.grade.mark(),
            amount(measure, summary.median),
            amount(measure, summary.min),
            amount(measure, summary.max)
        )
    };
    let left_out = match &dot.one.left_out {
        Some(why) => format!("; left out: {why}"),
        None => String::new(),
    };
    format!(
        "{}: {}, {}{left_out}",
        dot.one.name,
        one(memory, dot.memory),
        one(time, dot.time)
    )
}

fn draw_names(picture: &mut Picture, dots: &[Dot<'_>]) {
    let mut order: Vec<&Dot<'_>> = dots.iter().collect();
    order.sort_by_key(|dot| (!dot.is_taken, !dot.is_reference, !dot.one.on_front));
    order.truncate(MOST_NAMES);
    let names: Vec<String> = order
        .iter()
        .map(|dot| short(&dot.one.name, LONGEST_NAME))
        .collect();
    let labels: Vec<((f64, f64), f64)> = order
        .iter()
        .zip(&names)
        .map(|(dot, name)| (dot.at, pixels(name)))
        .collect();
    let points: Vec<(f64, f64)> = dots.iter().map(|dot| dot.at).collect();
    let bars: Vec<Rectangle> = dots.iter().flat_map(Dot::rectangles).collect();
    let places = labels::place(&labels, &points, &bars, ROOM);
    for ((dot, name), place) in order.into_iter().zip(names).zip(places) {
        let Some(place) = place else { continue };
        let (x, y) = dot.at;
        let middle = place.y + LINE / 2.0;
        if (middle - y).abs() > 1.5 * LINE {
            let nearest = x.clamp(place.x, place.x + place.width);
            picture.path(&[(x, y), (nearest, middle)], FAINT, 0.5, "");
        }
        let colour = if dot.is_taken { ORANGE } else { TEXT };
        picture.text((place.x, place.y + 11.5), Anchor::Start, colour, &name);
    }
}

fn draw_legend(picture: &mut Picture) {
    let y = ROOM.y + ROOM.height + 64.0;
    let mut x = EDGE + 8.0;
    let words = [
        (Mark::Circle, SKY, SKY, "on the front"),
        (Mark::Circle, GROUND, FAINT, "beaten"),
        (Mark::Diamond, GROUND, FAINT, "the reference"),
        (
            Mark::Cross,
            GROUND,
            VERMILION,
            "not in force, or no verdict",
        ),
    ];
    for (mark, fill, stroke, word) in words {
        draw_mark(picture, (x, y - 4.0), mark, fill, stroke);
        picture.text((x + 13.0, y), Anchor::Start, FAINT, word);
        x += pixels(word) + 42.0;
    }
    picture.circle((x, y - 4.0), 8.0, "none", ORANGE);
    picture.text((x + 15.0, y), Anchor::Start, FAINT, "recommended");
    x += pixels("recommended") + 44.0;
    picture.text((x, y), Anchor::Start, FAINT, "bars: least to most");
}
