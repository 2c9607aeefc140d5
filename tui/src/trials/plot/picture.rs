//! Shapes and text, as SVG.

use std::fmt::Write;

use plimsoll_trials::words::xml;
use unicode_width::UnicodeWidthStr;

use crate::paint::{safe, shortened};

/// The ground of the pictures of the live screen, and its text.
pub(super) const GROUND: &str = "#161a20";
pub(super) const TEXT: &str = "#d0d4da";
pub(super) const FAINT: &str = "#969ca6";
pub(super) const GRID: &str = "#2c323c";
// The palette of Okabe and Ito, which those tell apart who do not see red from green.
pub(super) const SKY: &str = "#56b4e9";
pub(super) const ORANGE: &str = "#e69f00";
pub(super) const VERMILION: &str = "#f0716a";

/// Pixels of a character at size 12, in any of the fonts asked for.
const CHARACTER: f64 = 7.3;

/// Where a text begins, or ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture being drawn.
pub(super) struct Picture {
    out: String,
}

impl Picture {
    /// An empty one of so many pixels, called `title`, with a longer `description`.
    pub(super) fn new(width: f64, height: f64, title: &str, description: &str) -> Picture {
        let mut out = String::new();
        let (title, description) = (escaped(title), escaped(description));
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
             font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" \
             font-size=\"12\">\n<title>{title}</title>\n<desc>{description}</desc>\n\
             <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{GROUND}\"/>"
        );
        Picture { out }
    }

    pub(super) fn done(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }

    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, fill: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{fill}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(text)
        );
    }

    pub(super) fn heading(&mut self, (x, y): (f64, f64), text: &str) {
        let _ = writeln!(
            self.out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{TEXT}\" font-size=\"15\" \
             font-weight=\"bold\">{}</text>",
            escaped(text)
        );
    }

    /// Lines from point to point; `dashes` as SVG has them, empty for none.
    pub(super) fn path(&mut self, points: &[(f64, f64)], stroke: &str, width: f64, dashes: &str) {
        let dashes = match dashes {
            "" => String::new(),
            dashes => format!(" stroke-dasharray=\"{dashes}\""),
        };
        let _ = writeln!(
            self.out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{stroke}\" \
             stroke-width=\"{width}\"{dashes}/>",
            places(points)
        );
    }

    pub(super) fn circle(&mut self, (x, y): (f64, f64), radius: f64, fill: &str, stroke: &str) {
        let _ = writeln!(
            self.out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{fill}\" \
             stroke=\"{stroke}\" stroke-width=\"2\"/>"
        );
    }

    pub(super) fn polygon(&mut self, corners: &[(f64, f64)], fill: &str, stroke: &str) {
        let _ = writeln!(
            self.out,
            "<polygon points=\"{}\" fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"2\"/>",
            places(corners)
        );
    }

    /// What follows belongs together, and shows this when pointed at; to be ended.
    pub(super) fn begin(&mut self, hover: &str) {
        let _ = writeln!(self.out, "<g><title>{}</title>", escaped(hover));
    }

    pub(super) fn end(&mut self) {
        self.out.push_str("</g>\n");
    }
}

fn places(points: &[(f64, f64)]) -> String {
    let places: Vec<String> = points
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    places.join(" ")
}

/// Columns that fit into so many pixels.
pub(super) fn columns(pixels: f64) -> usize {
    (pixels / CHARACTER) as usize
}

/// A name as it is drawn: control characters escaped, cut to so many columns.
pub(super) fn short(text: &str, columns: usize) -> String {
    shortened(&safe(text), columns).into_owned()
}

/// Pixels of a text.
pub(super) fn pixels(text: &str) -> f64 {
    text.width() as f64 * CHARACTER
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    xml(&safe(text))
}
