//! Clicks and the wheel.

use crate::world::World;

/// Turns the wheel down, or up, over a cell, counted from 0.
fn wheel(down: bool, (column, row): (u16, u16)) -> String {
    let button = if down { 65 } else { 64 };
    format!("\x1b[<{button};{};{}M", column + 1, row + 1)
}

/// The row of the table of models where one stands.
fn row_of(screen: &str, model: &str) -> u16 {
    let mut rows = screen.lines();
    let row = rows.position(|line| line.contains(&format!(" {model}  ")));
    u16::try_from(row.unwrap()).unwrap()
}

#[test]
fn a_click_goes_to_a_panel_selects_a_row_opens_it_sorts_and_presses_keys() {
    let world = World::new();
    let mut top = world.top(&["--at", "5.08s", world.recording()], (80, 24));
    top.wait_text("▶ m4");

    // A title that is all there is of a panel opens it.
    top.click_on("4 HEAP MAP");
    top.wait_text("┌4 HEAP MAP");
    top.click_on("5 MODELS");
    let screen = top.wait_text("▶ m4");

    let row = row_of(&screen, "m2");
    top.click(4, row);
    top.wait_text("▶ m2");
    top.click(4, row);
    top.wait_text("┌MODEL  m2");
    top.click_on("esc close");
    top.wait_text("▶ m2");

    top.click_on("MODEL  ");
    top.wait_for("by name", |screen| {
        row_of(screen, "m0") < row_of(screen, "m1") && row_of(screen, "m4") < row_of(screen, "m5")
    });
    top.click_on("MODEL");
    // The heading, and not the title of the panel, which has no such row below it.
    top.click_on("DEVICE");
    top.wait_text("DEVICE▼");
    top.click_on("DEVICE▼");
    top.wait_text("DEVICE▲");

    top.click_on("? help");
    top.wait_text("┌HELP");
    // Anywhere closes it, and does nothing else.
    top.click_on("q ctrl-c");
    top.wait_for("no help", |screen| !screen.contains("┌HELP"));
    top.click_on("e expand");
    top.wait_for("models alone", |screen| !screen.contains("1 HEADROOM"));
    top.click_on("q quit");
    assert_eq!(top.wait().code(), Some(0));
    assert_eq!(top.damage(), [""; 0]);
}

#[test]
fn the_wheel_turns_what_is_under_it() {
    let world = World::new();
    let mut top = world.top(&["--at", "5.08s", world.recording()], (120, 36));
    let screen = top.wait_text("▶ m4");
    let over = (10, row_of(&screen, "m4"));
    top.send(&wheel(true, over));
    top.wait_text("▶ m2");
    top.send(&wheel(false, over));
    top.wait_text("▶ m4");
    // Over the decisions, which do not have the focus.
    let (row, _) = screen
        .lines()
        .enumerate()
        .find(|(_, line)| line.contains("LOAD     m5"))
        .unwrap();
    let over = (10, u16::try_from(row).unwrap());
    top.send(&wheel(true, over));
    top.send(&wheel(true, over));
    top.wait_for("older decisions", |now| {
        !now.contains("LOAD     m5") && now.contains("▶ m4")
    });
    top.send("q");
    assert_eq!(top.wait().code(), Some(0));
}

#[test]
fn a_config_without_the_mouse_leaves_it_to_the_terminal() {
    let world = World::new();
    std::fs::write(world.path("top.toml"), "mouse = false\n").unwrap();
    let arguments = ["--config", "top.toml", "--at", "5.08s", world.recording()];
    let mut top = world.top(&arguments, (80, 24));
    top.wait_text("▶ m4");
    assert!(!top.takes_clicks());
    top.send("q");
    assert_eq!(top.wait().code(), Some(0));

    let mut top = world.top(&["--at", "5.08s", world.recording()], (80, 24));
    top.wait_text("▶ m4");
    assert!(top.takes_clicks());
    top.send("q");
    assert_eq!(top.wait().code(), Some(0));
}
