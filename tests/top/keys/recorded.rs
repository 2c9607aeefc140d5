//! Keys on a recording that stands still, which no clock changes.

use std::collections::BTreeSet;

use super::Keyboard;
use crate::world::World;

/// Where in the recording it stands, tenths of a second.
fn at(screen: &str) -> Option<u32> {
    let status = screen.lines().next()?;
    let (before, _) = status.split_once("/11.8 s")?;
    let at = before.rsplit(' ').next()?;
    at.replace('.', "").parse().ok()
}

/// How many decisions there were until then.
fn decided(screen: &str) -> u32 {
    let (_, after) = screen.split_once("DECISIONS  newest first").unwrap();
    let number = after.trim_start_matches([',', ' ']);
    let number = number.split(|c: char| !c.is_ascii_digit()).next();
    number.unwrap().parse().unwrap_or(0)
}

pub fn keys() -> BTreeSet<String> {
    let world = World::new();
    let top = world.top(&["--at", "5.08s", world.recording()], (80, 24));
    let mut top = Keyboard::at(top);
    top.wait_text("PAUSED 5.1/11.8 s");
    top.wait_text("▶ m4");
    panels(&mut top);
    rows(&mut top);
    pages(&mut top);
    shown(&mut top);
    help(&mut top);
    time(&mut top);
    refused(&mut top);
    top.shows("w", "written to plimsoll-top-4121-1.json");
    let saved = std::fs::read(world.path("plimsoll-top-4121-1.json")).unwrap();
    let saved: serde_json::Value = serde_json::from_slice(&saved).unwrap();
    assert_eq!(saved["kind"], "recording");
    assert_eq!(saved["models"].as_array().unwrap().len(), 6);
    top.leave("q")
}

fn panels(top: &mut Keyboard) {
    for (key, title) in [
        ("1", "┌1 HEADROOM"),
        ("2", "┌2 TIMELINE"),
        ("3", "┌3 ALLOCATOR"),
        ("4", "┌4 HEAP MAP"),
        ("6", "┌6 DECISIONS"),
        ("5", "┌5 MODELS"),
    ] {
        top.shows(key, title);
    }
    top.shows("tab", "┌6 DECISIONS");
    top.shows("shift-tab", "┌5 MODELS");
    // The verdict is always open; alone it has all the room.
    top.shows("0", "┌1 HEADROOM");
    top.hides("e", "1 HEADROOM");
    top.shows("5", "▶ m4");
    top.shows("e", "─1 HEADROOM");
    top.hides("e", "1 HEADROOM");
    top.shows("esc", "1 HEADROOM");
}

fn rows(top: &mut Keyboard) {
    for (key, selected) in [
        ("down", "▶ m5"),
        ("j", "▶ m3"),
        ("up", "▶ m5"),
        ("k", "▶ m4"),
        ("end", "▶ m0"),
        ("home", "▶ m4"),
        ("G", "▶ m0"),
        ("g", "▶ m4"),
        ("pgdn", "▶ m0"),
        ("pgup", "▶ m4"),
        ("ctrl-d", "▶ m0"),
        ("ctrl-u", "▶ m4"),
    ] {
        top.shows(key, selected);
    }
}

fn pages(top: &mut Keyboard) {
    top.shows("enter", "┌MODEL  m4");
    top.shows("right", "┌MODEL  m5");
    top.shows("left", "┌MODEL  m4");
    top.shows("l", "┌MODEL  m5");
    top.shows("h", "┌MODEL  m4");
    top.hides("down", "model    m4");
    top.shows("esc", "┌5 MODELS");
    top.shows("enter", "┌MODEL  m4");
    top.shows("backspace", "┌5 MODELS");
    top.shows("6", "┌6 DECISIONS");
    let before = top.text();
    assert!(before.contains("LOAD     m5"), "{before}");
    top.shows("down", "▶ 00:00:04  EVICT    m3");
    top.shows("enter", "┌DECISION");
    top.shows("right", "LOAD  m5  in ram");
    top.shows("esc", "┌6 DECISIONS");
}

fn shown(top: &mut Keyboard) {
    top.shows("5", "┌5 MODELS");
    top.hides("o", "RAM▼");
    top.shows("O", "▲");
    top.send("O");
    top.wait_for("the first order", |screen| !screen.contains('▲'));

    // While a filter is typed keys are letters.
    top.shows("/", "filter: ");
    top.send("qm5");
    top.wait_text("filter: qm5");
    top.send("\x7f\x7f\x7fM5");
    top.wait_for("m5 alone", |screen| {
        screen.contains("filter: m5") && screen.contains("▶ m5") && !screen.contains("  m3 ")
    });
    top.press("enter", |screen| {
        screen.contains("filter: m5  ") && screen.contains("? help")
    });
    top.shows("esc", "  m3 ");

    // It fits what there is, until it is zoomed.
    top.shows("2", "┌2 TIMELINE  10 s");
    top.shows("-", "┌2 TIMELINE  30 s");
    top.send("-");
    top.wait_text("┌2 TIMELINE  1 min");
    top.shows("+", "┌2 TIMELINE  30 s");
    top.shows("=", "┌2 TIMELINE  10 s");

    top.shows("4", "┌4 HEAP MAP  main arena");
    top.shows("a", "┌4 HEAP MAP  arena 1");
}

fn help(top: &mut Keyboard) {
    top.shows("?", "┌HELP");
    top.hides("down", "Getting around");
    top.shows("up", "Getting around");
    top.hides("pgdn", "Getting around");
    top.shows("pgup", "Getting around");
    top.hides("x", "HELP");
    top.shows("f1", "┌HELP");
    top.hides("esc", "HELP");
}

fn time(top: &mut Keyboard) {
    let is = |tenths: std::ops::Range<u32>| {
        move |screen: &str| at(screen).is_some_and(|at| tenths.contains(&at))
    };
    top.shows("5", "┌5 MODELS");
    top.press("[", is(40..50));
    top.press("]", is(50..60));
    top.press("{", is(0..2));
    top.press("}", is(118..119));
    // Of any kind, then of the one that is shown.
    top.press("{", is(0..2));
    top.press("]", is(2..10));
    top.shows("6", "┌6 DECISIONS");
    let first = decided(&top.text());
    top.press("n", |screen| decided(screen) == first + 1);
    top.press("n", |screen| decided(screen) == first + 2);
    top.press("N", |screen| decided(screen) == first + 1);
    top.press("{", is(0..2));
    for kind in ["load", "evict", "refuse"] {
        top.shows("o", &format!("DECISIONS  {kind} only, newest first"));
    }
    top.press("n", is(54..56));
    top.wait_text("REFUSE");

    top.send("{");
    top.wait_for("the start", is(0..2));
    top.shows("space", "▶ PLAY");
    top.shows(">", "PLAY 2x ");
    top.shows(".", "PLAY 4x ");
    top.shows("<", "PLAY 2x ");
    top.shows(",", "PLAY 1");
    top.shows("space", "PAUSED");
    top.shows("<", "it stands still");
    top.shows("m", "marked");
    top.press("}", is(118..119));
    top.shows("d", "since the mark");
    top.hides("d", "since the mark");
}

fn refused(top: &mut Keyboard) {
    top.shows("t", "a recording is read only");
    for key in ["x", "X", "b"] {
        top.shows("T", "theme ");
        top.shows(key, "a recording is read only");
    }
    top.shows("r", "there is no process to walk");
}
