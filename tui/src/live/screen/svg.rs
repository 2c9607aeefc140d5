//! A frame as an SVG picture.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::theme::Theme;

/// Pixels of a cell.
const CELL: (f64, f64) = (8.4, 18.0);
/// Pixels around the frame.
const EDGE: f64 = 12.0;

/// How a run of cells looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    text: (u8, u8, u8),
    ground: Option<(u8, u8, u8)>,
    bold: bool,
}

/// A frame as a picture of a terminal.
pub(super) fn picture(buffer: &Buffer, theme: &Theme) -> String {
    let (columns, rows) = (f64::from(buffer.area.width), f64::from(buffer.area.height));
    let (width, height) = (columns * CELL.0 + 2.0 * EDGE, rows * CELL.1 + 2.0 * EDGE);
    let (ground, text) = grounds(theme);
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"ui-monospace, 'DejaVu Sans Mono', \
         Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{}\"/>",
        hex(ground)
    );
    for row in 0..buffer.area.height {
        let mut column = 0;
        while column < buffer.area.width {
            let look = look(&buffer[(column, row)], ground, text);
            let begun = column;
            let mut run = String::new();
            while column < buffer.area.width {
                let cell = &buffer[(column, row)];
                if self::look(cell, ground, text) != look {
                    break;
                }
                run.push_str(cell.symbol());
                column += 1;
            }
            write_run(&mut out, (begun, row), column - begun, &run, &look);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn write_run(out: &mut String, (column, row): (u16, u16), cells: u16, run: &str, look: &Look) {
    let (x, y) = (
        EDGE + f64::from(column) * CELL.0,
        EDGE + f64::from(row) * CELL.1,
    );
    let width = f64::from(cells) * CELL.0;
    if let Some(ground) = look.ground {
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
            CELL.1,
            hex(ground)
        );
    }
    let weight = if look.bold {
        " font-weight=\"bold\""
    } else {
        ""
    };
    let mut at = 0;
    for word in run.split(' ') {
        if !word.is_empty() {
            // Each character at its own place: fonts differ in what they hold for one cell.
            let mut places = String::new();
            let mut cell = at;
            for c in word.chars() {
                let _ = write!(places, "{:.1} ", x + cell as f64 * CELL.0);
                cell += c.width().unwrap_or(0);
            }
            let _ = writeln!(
                out,
                "<text x=\"{}\" y=\"{:.1}\" fill=\"{}\"{weight}>{}</text>",
                places.trim_end(),
                y + CELL.1 * 0.75,
                hex(look.text),
                escaped(word)
            );
        }
        at += word.width() + 1;
    }
}

/// What is behind everything, and plain text.
fn grounds(theme: &Theme) -> ((u8, u8, u8), (u8, u8, u8)) {
    match theme.name {
        "light" => ((0xfb, 0xfb, 0xf9), (0x24, 0x29, 0x2f)),
        "contrast" => ((0, 0, 0), (0xff, 0xff, 0xff)),
        _ => ((0x16, 0x1a, 0x20), (0xd0, 0xd4, 0xda)),
    }
}

fn look(cell: &Cell, ground: (u8, u8, u8), text: (u8, u8, u8)) -> Look {
    let rgb = |colour: Color| match colour {
        Color::Rgb(red, green, blue) => Some((red, green, blue)),
        _ => None,
    };
    let (mut front, mut back) = (rgb(cell.fg).unwrap_or(text), rgb(cell.bg));
    if cell.modifier.contains(Modifier::REVERSED) {
        (front, back) = (back.unwrap_or(ground), Some(front));
    }
    Look {
        text: front,
        ground: back,
        bold: cell.modifier.contains(Modifier::BOLD),
    }
}

fn hex((red, green, blue): (u8, u8, u8)) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            other => out.push(other),
        }
    }
    out
}
