//! As the leader of a session: as in a container, or under `ssh -t`.

use crate::shell::Terminal;
use crate::world::{BOTH, World, end_of, raw, send, wait_until};

fn count(world: &World) -> Terminal {
    Terminal::run(world.probing(&["count", &world.name("seen")]))
}

#[test]
fn keys_and_a_change_of_size_reach_it_once() {
    for how in BOTH {
        let world = World::new(how);
        let mut terminal = count(&world);
        let counting = world.counting("seen");
        for (key, signal) in [("\x03", libc::SIGINT), ("\x1c", libc::SIGQUIT)] {
            terminal.keys(key);
            assert_eq!(counting.settled(signal), 1, "{how:?}");
        }
        terminal.resize(99);
        assert_eq!(counting.settled(libc::SIGWINCH), 1, "{how:?}");
        counting.end();
        assert_eq!(raw(end_of(&mut terminal.child)), 7 << 8, "{how:?}");
    }
}

/// Nobody could continue it.
#[test]
fn ctrl_z_does_not_stop_it() {
    for how in BOTH {
        let world = World::new(how);
        let mut terminal = count(&world);
        let counting = world.counting("seen");
        terminal.keys("\x1a\x03");
        assert_eq!(counting.settled(libc::SIGINT), 1, "{how:?}");
        assert_eq!(counting.count(libc::SIGCONT), 0, "{how:?}");
        counting.end();
        assert_eq!(raw(end_of(&mut terminal.child)), 7 << 8, "{how:?}");
    }
}

#[test]
fn the_end_of_the_terminal_reaches_it_once() {
    for how in BOTH {
        let world = World::new(how);
        let mut terminal = count(&world);
        let counting = world.counting("seen");
        terminal.hang_up();
        assert_eq!(counting.settled(libc::SIGHUP), 1, "{how:?}");
        counting.end();
        assert_eq!(raw(end_of(&mut terminal.child)), 7 << 8, "{how:?}");
    }
}

#[test]
fn it_reads_its_terminal() {
    for how in BOTH {
        let world = World::new(how);
        let out = world.name("line");
        let mut terminal = Terminal::run(world.probing(&["line", &out]));
        terminal.keys("hello\n");
        assert_eq!(world.wait_file("line"), "read hello\n", "{how:?}");
        assert_eq!(raw(end_of(&mut terminal.child)), 0, "{how:?}");
    }
}

/// What it left in its group is hung up on, as by the end of any leader.
#[test]
fn its_end_hangs_up_on_what_it_left_in_the_foreground() {
    for how in BOTH {
        let world = World::new(how);
        let probe = World::probe(&["count", &world.name("seen")]).join(" ");
        let script = format!("{probe} & until grep -q ready seen; do :; done; exit 3");
        let words = ["sh", "-c", &script].map(str::to_owned);
        let exec = match how {
            crate::world::How::Bare => Vec::new(),
            crate::world::How::Exec => world.exec(&["--no-follow"]),
        };
        let mut terminal = Terminal::run(world.plain(exec.into_iter().chain(words)));
        assert_eq!(raw(end_of(&mut terminal.child)), 3 << 8, "{how:?}");
        let counting = world.counting("seen");
        counting.wait_seen(libc::SIGHUP);
        send(counting.pid, libc::SIGKILL);
        wait_until("its end", || !crate::world::lives(counting.pid));
    }
}
