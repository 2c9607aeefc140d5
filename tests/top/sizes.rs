//! Terminals of any size, and what is no terminal.

use std::process::Stdio;

use crate::terminal::Terminal;
use crate::world::{World, text};

/// The lines that are as wide as the screen: whether the frames reach its edges.
fn fills(screen: &str, (columns, rows): (u16, u16)) -> bool {
    let lines: Vec<&str> = screen.lines().collect();
    let widest = lines.iter().map(|line| line.chars().count()).max();
    let last = lines.last().copied().unwrap_or_default();
    lines.len() == usize::from(rows)
        && widest == Some(usize::from(columns))
        && last.starts_with("? help")
        && screen.starts_with("plimsoll  ")
}

#[test]
fn any_size_is_filled_and_what_is_too_small_says_so_until_it_is_not() {
    let world = World::new();
    let mut top = world.top(&["--at", "5s", world.recording()], (200, 60));
    top.wait_for("200x60", |screen| fills(screen, (200, 60)));
    for size in [(120, 36), (80, 24), (60, 18)] {
        top.resize(size.0, size.1);
        top.wait_for(&format!("{size:?}"), |screen| fills(screen, size));
    }
    for (columns, rows) in [(59, 18), (60, 17), (20, 5), (1, 1)] {
        top.resize(columns, rows);
        let said = format!("{columns}x{rows} is too small: 60x18 is needed");
        top.wait_for(&said, |screen| {
            let words: Vec<&str> = screen.split_whitespace().collect();
            let all = words.join(" ");
            // A single cell has no room for a word.
            let said_what_fits = all == said || columns == 1 && !all.is_empty();
            screen.lines().count() == usize::from(rows) && said_what_fits
        });
    }
    for size in [(60, 18), (300, 100), (80, 24)] {
        top.resize(size.0, size.1);
        top.wait_for(&format!("{size:?}"), |screen| fills(screen, size));
    }
    top.send("q");
    assert_eq!(top.wait().code(), Some(0));
    assert_eq!(top.damage(), [""; 0]);
}

#[test]
fn keys_do_nothing_unseen_while_it_is_too_small_but_leave() {
    let world = World::new();
    let mut top = world.top(&["--at", "5s", world.recording()], (80, 24));
    top.wait_text("5 MODELS");
    top.resize(20, 5);
    top.wait_text("20x5 is too small");
    top.send("q");
    assert_eq!(top.wait().code(), Some(0));
    assert_eq!(top.damage(), [""; 0]);
}

#[test]
fn a_terminal_that_is_too_small_at_first_is_refused_with_its_numbers() {
    let world = World::new();
    let mut top = world.top(&[world.recording()], (20, 5));
    assert_eq!(top.wait().code(), Some(2));
    let said: String = top.text().lines().collect();
    // What is printed scrolls in so few rows; its end is there.
    assert!(said.contains("--once"), "{said}");
    let mut top = world.top(&[world.recording()], (59, 30));
    assert_eq!(top.wait().code(), Some(2));
    let said: String = top.text().lines().collect();
    for part in ["59 columns", "30 rows", "60 and 18", "--once"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(top.damage(), [""; 0]);
}

#[test]
fn a_dumb_terminal_is_pointed_to_once() {
    let world = World::new();
    let mut command = world.command(["top", world.recording()]);
    command.env("TERM", "dumb");
    let mut top = Terminal::run(command, (80, 24));
    assert_eq!(top.wait().code(), Some(2));
    let said = top.text();
    assert!(
        said.contains("TERM=dumb") && said.contains("--once"),
        "{said}"
    );
}

#[test]
fn what_is_no_terminal_is_pointed_to_once() {
    let world = World::new();
    let output = world
        .command(["top", world.recording()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    assert!(
        said.contains("standard input") && said.contains("--once"),
        "{said}"
    );

    // A terminal to read from, and a pipe to write to.
    for arguments in [vec!["top", world.recording()], vec!["top"]] {
        let shell = std::process::Command::new("sh");
        let mut piped = world.command([""; 0]);
        let (program, rest) = (piped.get_program().to_owned(), arguments);
        let mut command = shell;
        for (name, value) in piped.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .args(["-c", "\"$0\" \"$@\" | cat; echo done"])
            .arg(program)
            .args(rest);
        piped.stdin(Stdio::null());
        let mut top = Terminal::run(command, (120, 24));
        assert_eq!(top.wait().code(), Some(0));
        let said = top.text();
        assert!(said.contains("standard output is no terminal"), "{said}");
        assert!(said.contains("--once") && said.contains("done"), "{said}");
    }
}
