//! What is left behind: a terminal as it was, and the exit code that says why.

use std::process::Command;
use std::time::Duration;

use plimsoll_events::Event;
use plimsoll_tui::live::screen::{Config, run};
use plimsoll_tui::live::source::{About, Control, Heard, Source, SourceError};
use rustix::process::Signal;

use crate::terminal::Terminal;
use crate::world::{Steps, World};

fn shown(world: &World) -> Terminal {
    let top = world.top(&["--at", "5.08s", world.recording()], (80, 24));
    top.wait_text("▶ m4");
    assert_eq!(
        top.damage(),
        [
            "raw mode",
            "alternate screen",
            "hidden cursor",
            "mouse reporting"
        ]
    );
    top
}

#[test]
fn signals_end_it_with_their_code_and_the_terminal_as_it_was() {
    let world = World::new();
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let mut top = shown(&world);
        top.signal(signal);
        assert_eq!(top.wait().code(), Some(code), "{signal:?}");
        assert_eq!(top.damage(), [""; 0], "{signal:?}");
    }
    // And while there is a choice of what to look at.
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut top = world.top(&[], (80, 24));
        top.wait_text("attach");
        top.signal(signal);
        assert_eq!(top.wait().code(), Some(code), "{signal:?}");
        assert_eq!(top.damage(), [""; 0], "{signal:?}");
    }
}

#[test]
fn ctrl_z_stops_it_with_the_terminal_as_it_was_and_the_screen_comes_back() {
    let world = World::new();
    let chooser = world.top(&[], (80, 24));
    chooser.wait_text("attach");
    for (mut top, text) in [(shown(&world), "▶ m4"), (chooser, "attach")] {
        for by_key in [true, false] {
            if by_key {
                top.send("\x1a");
            } else {
                top.signal(Signal::TSTP);
            }
            top.wait_stopped();
            assert_eq!(top.damage(), [""; 0]);
            top.signal(Signal::CONT);
            top.wait_damaged();
            top.wait_text(text);
        }
        top.send("q");
        assert_eq!(top.wait().code(), Some(0));
        assert_eq!(top.damage(), [""; 0]);
    }
}

#[test]
fn a_stop_that_nobody_asked_it_about_is_mended_when_it_goes_on() {
    let world = World::new();
    let mut top = shown(&world);
    top.signal(Signal::STOP);
    top.wait_stopped();
    // As a shell does that has the terminal now.
    top.make_cooked();
    top.signal(Signal::CONT);
    top.wait_damaged();
    top.send("?");
    top.wait_text("┌HELP");
    top.send("q");
    top.wait_text("▶ m4");
    top.send("q");
    assert_eq!(top.wait().code(), Some(0));
    assert_eq!(top.damage(), [""; 0]);
}

#[test]
fn keys_are_not_lost_while_the_terminal_takes_nothing_and_the_newest_frame_comes_after() {
    let world = World::new();
    let served = world.served(Steps::Busy, &[]);
    let mut top = world.top(&[served.at()], (200, 60));
    top.wait_text("LIVE");
    top.stop_reading(true);
    // Frames enough to fill any buffer of a terminal, if they were written.
    for _ in 0..20 {
        top.send("T");
    }
    top.send("4e");
    // Somebody else hears of the cache meanwhile: the publisher waits for nobody.
    let seq = || {
        let seen = world.json(&["top", served.at(), "--once", "--json"]);
        seen["seq"].as_u64().unwrap()
    };
    let before = seq();
    while seq() < before + 5 {}
    top.stop_reading(false);
    top.wait_for("the last of the keys", |screen| {
        screen.contains("┌4 HEAP MAP") && !screen.contains("1 HEADROOM")
    });
    top.send("6");
    top.wait_text("LOAD ");
    top.send("q");
    assert_eq!(top.wait().code(), Some(0));
    assert_eq!(top.damage(), [""; 0]);
}

#[test]
fn a_signal_ends_it_though_the_terminal_takes_nothing() {
    let world = World::new();
    let command = world.command(["top", "--at", "5.08s", world.recording()]);
    let mut top = Terminal::lend(command, (80, 24));
    top.wait_text("▶ m4");
    top.stop_reading(true);
    for _ in 0..40 {
        top.send("T4e5e");
    }
    top.signal(Signal::TERM);
    assert_eq!(top.wait().code(), Some(143));
    top.stop_reading(false);
    top.wait_undamaged();
}

#[test]
fn it_ends_when_the_terminal_goes_and_does_not_spin() {
    let world = World::new();
    let served = world.served(Steps::Busy, &[]);
    for hung_up in [true, false] {
        let mut command = world.command(["top", served.at()]);
        if !hung_up {
            // A process whose terminal goes without a word.
            use std::os::unix::process::CommandExt;
            // SAFETY: `signal` is async-signal-safe, and nothing else is called.
            unsafe {
                command.pre_exec(|| {
                    libc::signal(libc::SIGHUP, libc::SIG_IGN);
                    Ok(())
                });
            }
        }
        let mut top = Terminal::run(command, (80, 24));
        top.wait_text("LIVE");
        top.close();
        let status = top.wait();
        assert_eq!(status.code(), Some(129), "{status:?}");
    }
}

/// A source with a fault.
struct Faulty;

impl Source for Faulty {
    fn about(&self) -> About {
        About::default()
    }

    fn hear(&mut self, _: Duration, _: &mut Vec<Event>) -> Result<Heard, SourceError> {
        panic!("a fault of the source");
    }

    fn control(&mut self, _: Control) {}
}

#[test]
#[ignore = "it is run in a terminal by the test below"]
fn a_faulty_source() {
    let finished = run(Box::new(Faulty), &Config::default(), None).unwrap();
    assert!(finished.failed.is_some());
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was_and_is_seen() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "manners::a_faulty_source",
            "--ignored",
            "--nocapture",
        ])
        .env("TERM", "xterm-256color");
    let mut top = Terminal::run(command, (120, 36));
    assert_eq!(top.wait().code(), Some(0), "{}", top.text());
    assert_eq!(top.damage(), [""; 0]);
    assert!(
        top.text().contains("a fault of the source"),
        "{}",
        top.text()
    );
}
