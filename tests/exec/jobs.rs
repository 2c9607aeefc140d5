//! As a job of an interactive shell: keys, stops, foreground and background.

use crate::shell::Shell;
use crate::world::{BOTH, How, World, has, lives, parent, send, state, wait_until};

/// A case in a shell, bare and under `exec`; what it gives is to be the same.
fn both<T: PartialEq + std::fmt::Debug>(case: impl Fn(&World, &mut Shell) -> T) -> Option<T> {
    if !has("bash") {
        return None;
    }
    let [bare, exec] = BOTH.map(|how| {
        let world = World::new(how);
        let mut shell = Shell::start(&world).unwrap();
        case(&world, &mut shell)
    });
    assert_eq!(bare, exec, "bare and under exec");
    Some(bare)
}

fn count(world: &World) -> String {
    world.line(&World::probe(&["count", &world.name("seen")]))
}

#[test]
fn it_leads_its_group_and_has_the_terminal() {
    let seen = both(|world, shell| {
        shell.ask(&world.line(&World::probe(&["state", &world.name("state")])));
        let text = world.wait_file("state");
        let own = |line: &&str| !line.starts_with("env ") && !line.starts_with("cwd ");
        text.lines()
            .filter(own)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    let Some(seen) = seen else { return };
    assert!(
        seen.iter().any(|line| line == "leads its group: true"),
        "{seen:?}"
    );
    assert!(
        seen.iter().any(|line| line == "has the terminal: true"),
        "{seen:?}"
    );
}

#[test]
fn keys_that_send_signals_reach_it_once() {
    both(|world, shell| {
        shell.line(&count(world));
        let counting = world.counting("seen");
        for (key, signal) in [("\x03", libc::SIGINT), ("\x1c", libc::SIGQUIT)] {
            shell.terminal.keys(key);
            assert_eq!(counting.settled(signal), 1, "{:?}", world.how);
        }
        shell.terminal.resize(99);
        assert_eq!(counting.settled(libc::SIGWINCH), 1, "{:?}", world.how);
        counting.end();
        let before = shell.terminal.said().len();
        shell.back(before);
        shell.ask("");
        counting.seen()
    });
}

#[test]
fn keys_that_end_it_give_the_status_that_they_give_bare() {
    let seen = both(|world, shell| {
        ["\x03", "\x1c"].map(|key| {
            let started = world.name("started");
            let script = format!(": > '{started}'; exec sleep 100");
            shell.line(&world.line(&["sh", "-c", &script].map(str::to_owned)));
            world.wait_file("started");
            // Until the shell script is the sleep, a key ends it just the same.
            shell.terminal.keys(key);
            wait_until("the shell", || {
                shell.terminal.foreground() == shell.terminal.child.id().cast_signed()
            });
            std::fs::remove_file(&started).unwrap();
            shell.status()
        })
    });
    assert!(seen.is_none_or(|seen| seen == [130, 131]));
}

#[test]
fn ctrl_z_stops_it_and_fg_and_bg_continue_it() {
    both(|world, shell| {
        shell.line(&count(world));
        let counting = world.counting("seen");
        for turn in 1..=3 {
            let before = shell.terminal.said().len();
            shell.terminal.keys("\x1a");
            let said = shell.back(before);
            assert!(said.contains("Stopped"), "{:?}: {said}", world.how);
            assert!(shell.ask("jobs").contains("Stopped"));
            if turn == 2 {
                shell.ask("bg");
                assert!(shell.ask("jobs").contains("Running"), "{:?}", world.how);
                assert_eq!(counting.settled(libc::SIGCONT), turn);
                shell.line("fg");
                // To one that runs bash sends none.
                wait_until("the terminal", || {
                    shell.terminal.foreground() != shell.terminal.child.id().cast_signed()
                });
            } else {
                shell.line("fg");
            }
            let came = counting.settled(libc::SIGCONT);
            assert!(came >= turn, "{came} of {turn}");
        }
        shell.terminal.keys("\x03");
        assert_eq!(counting.settled(libc::SIGINT), 1);
        counting.end();
        let before = shell.terminal.said().len();
        shell.back(before);
        counting.count(libc::SIGCONT)
    });
}

#[test]
fn a_program_that_made_the_terminal_raw_has_it_so_again_after_fg() {
    let seen = both(|world, shell| {
        shell.line(&world.line(&World::probe(&["raw", &world.name("seen")])));
        let counting = world.counting("seen");
        let raw = shell.terminal.local_modes();
        let before = shell.terminal.said().len();
        shell.terminal.keys("\x1a");
        shell.back(before);
        let cooked = shell.terminal.local_modes();
        shell.line("fg");
        assert_eq!(counting.settled(libc::SIGCONT), 1);
        let again = shell.terminal.local_modes();
        counting.end();
        let before = shell.terminal.said().len();
        shell.back(before);
        (raw, cooked, again, shell.terminal.local_modes())
    });
    let Some((raw, cooked, _, _)) = seen else {
        return;
    };
    assert_ne!(raw, cooked);
}

#[test]
fn a_background_job_that_reads_the_terminal_stops_until_it_is_in_the_foreground() {
    let seen = both(|world, shell| {
        let probe = world.line(&World::probe(&["line", &world.name("line")]));
        shell.ask(&format!("{probe} &"));
        shell.wait_stopped();
        shell.line("fg");
        wait_until("the terminal", || {
            shell.terminal.foreground() != shell.terminal.child.id().cast_signed()
        });
        let before = shell.terminal.said().len();
        shell.line("hello");
        let line = world.wait_file("line");
        shell.back(before);
        line
    });
    assert!(seen.is_none_or(|seen| seen == "read hello\n"));
}

#[test]
fn a_background_job_that_may_not_write_stops() {
    let seen = both(|world, shell| {
        shell.ask("stty tostop");
        let probe = world.line(&World::probe(&["tell", "it\n"]));
        shell.ask(&format!("{probe} &"));
        shell.wait_stopped();
        let told = shell.terminal.said().contains("told: it");
        let before = shell.terminal.said().len();
        shell.line("fg");
        wait_until("what it tells", || {
            shell.terminal.said()[before..].contains("told: it")
        });
        shell.back(before);
        told
    });
    assert!(seen.is_none_or(|told| !told));
}

/// The shell keeps the terminal while a job of the background ends.
#[test]
fn a_background_job_that_ends_leaves_the_terminal_alone() {
    both(|world, shell| {
        let script = "until [ -e go ] || [ ! -e here ]; do sleep 0.02; done; exit 3";
        let words = ["sh", "-c", script].map(str::to_owned);
        let said = shell.ask(&format!("{} & echo \"job $!\"", world.line(&words)));
        let pid = said.split("job ").nth(1).unwrap();
        let pid: i32 = pid.split_whitespace().next().unwrap().parse().unwrap();
        // While the shell waits for a line.
        std::fs::write(world.path("go"), "").unwrap();
        wait_until("its end", || !lives(pid));
        let shell_pid = shell.terminal.child.id().cast_signed();
        assert_eq!(shell.terminal.foreground(), shell_pid, "{:?}", world.how);
        shell.ask(&format!("wait {pid}"));
        shell.ask("true");
        shell
            .ask(&format!("wait {pid}; echo \"code $?\""))
            .contains("code 3")
    });
}

#[test]
fn an_interactive_shell_under_it_has_jobs_of_its_own() {
    both(|world, shell| {
        let words = ["bash", "--noediting", "--norc", "--noprofile", "-i"].map(str::to_owned);
        let outer = shell.terminal.child.id().cast_signed();
        shell.line(&world.line(&words));
        wait_until("the inner shell", || shell.terminal.foreground() != outer);
        let inner_is = |shell: &Shell, what: &str| {
            wait_until(&format!("{what}: {:?}", shell.terminal.said()), || {
                shell.terminal.said().contains(what)
            });
        };
        shell.line("echo 'in'side");
        inner_is(shell, "inside");
        shell.line(&World::probe(&["count", &world.name("seen")]).join(" "));
        let counting = world.counting("seen");
        shell.terminal.keys("\x03");
        counting.wait_seen(libc::SIGINT);
        let inner = shell.terminal.foreground();
        shell.terminal.keys("\x1a");
        wait_until("the inner shell", || shell.terminal.foreground() != inner);
        shell.line("jobs; echo 'stopped'1");
        inner_is(shell, "stopped1");
        shell.line("fg");
        counting.wait_seen(libc::SIGCONT);
        let seen = [libc::SIGINT, libc::SIGCONT].map(|signal| counting.count(signal));
        send(counting.pid, crate::probe::over());
        wait_until("its end", || !lives(counting.pid));
        wait_until("the inner shell", || shell.terminal.foreground() != inner);
        shell.line("echo 'back'2");
        inner_is(shell, "back2");
        shell.line("exit 5");
        wait_until("the outer shell", || shell.terminal.foreground() == outer);
        (seen, shell.status())
    });
}

#[test]
fn the_programs_of_a_pipeline_share_the_terminal() {
    let seen = both(|world, shell| {
        let first = world.line(&World::probe(&["tell", "it\n"]));
        // As a pager reads its keys.
        let second = World::probe(&["line", &world.name("line"), "/dev/tty"]).join(" ");
        let outer = shell.terminal.child.id().cast_signed();
        shell.line(&format!("{first} | {second}"));
        wait_until("the pipeline", || shell.terminal.foreground() != outer);
        shell.line("key");
        let line = world.wait_file("line");
        let before = shell.terminal.said().len();
        shell.back(before);
        let zeros = world.line(&["cat", "/dev/zero"].map(str::to_owned));
        let said = shell.ask(&format!(
            "{zeros} | head -c 3 | wc -c; echo \"${{PIPESTATUS[*]}}\""
        ));
        (line, said.contains('3'), said.contains("141 0 0"))
    });
    let Some((line, three, broken)) = seen else {
        return;
    };
    assert_eq!((line.as_str(), three, broken), ("read key\n", true, true));
}

/// Ctrl-C at a pipeline reaches each of its programs once.
#[test]
fn keys_reach_all_of_a_pipeline() {
    both(|world, shell| {
        let other = World::probe(&["count", &world.name("other")]).join(" ");
        shell.line(&format!("{} | {other}", count(world)));
        let counting = world.counting("seen");
        let beside = World::counting(world, "other");
        shell.terminal.keys("\x03");
        beside.wait_seen(libc::SIGINT);
        assert_eq!(counting.settled(libc::SIGINT), 1, "{:?}", world.how);
        assert_eq!(beside.count(libc::SIGINT), 1);
        let before = shell.terminal.said().len();
        shell.terminal.keys("\x1a");
        assert!(shell.back(before).contains("Stopped"));
        shell.line("fg");
        assert_eq!(counting.settled(libc::SIGCONT), 1, "{:?}", world.how);
        beside.wait_seen(libc::SIGCONT);
        send(beside.pid, crate::probe::over());
        counting.end();
        let before = shell.terminal.said().len();
        shell.back(before);
        counting.count(libc::SIGCONT)
    });
}

#[test]
fn kill_of_a_job_reaches_it_once() {
    both(|world, shell| {
        shell.ask(&format!("{} &", count(world)));
        let counting = world.counting("seen");
        for (name, signal) in [("TERM", libc::SIGTERM), ("HUP", libc::SIGHUP)] {
            shell.ask(&format!("kill -{name} %1"));
            assert_eq!(counting.settled(signal), 1, "{:?}", world.how);
        }
        shell.ask("kill -TSTP %1");
        shell.wait_stopped();
        shell.ask("kill -CONT %1");
        assert_eq!(counting.settled(libc::SIGCONT), 1, "{:?}", world.how);
        counting.end();
        wait_until("its end", || !lives(counting.known_as()));
    });
}

#[test]
fn a_script_ends_at_ctrl_c_as_it_would_without_it() {
    let seen = both(|world, shell| {
        let words = world.line(&World::probe(&["count", &world.name("seen")]));
        std::fs::write(
            world.path("patient"),
            format!("{words}\necho \"code $?\" > after\n"),
        )
        .unwrap();
        let sleep = ": > started; exec sleep 100";
        let sleep = world.line(&["sh", "-c", sleep].map(str::to_owned));
        std::fs::write(
            world.path("plain"),
            format!("{sleep}\necho after > after2\n"),
        )
        .unwrap();
        shell.line("bash patient");
        let counting = world.counting("seen");
        // Before it waits for the program the key would end the script's shell.
        let script = parent(counting.known_as());
        wait_until("a wait", || state(script) == 'S');
        shell.terminal.keys("\x03");
        assert_eq!(counting.settled(libc::SIGINT), 1, "{:?}", world.how);
        let before = shell.terminal.said().len();
        shell.terminal.keys("\x1a");
        let said = shell.back(before);
        assert!(said.contains("Stopped"), "{:?}: {said}", world.how);
        shell.line("fg");
        assert_eq!(counting.settled(libc::SIGCONT), 1, "{:?}", world.how);
        counting.end();
        let before = shell.terminal.said().len();
        shell.back(before);
        let patient = (shell.status(), world.text("after"));
        shell.line("bash plain");
        world.wait_file("started");
        shell.terminal.keys("\x03");
        let before = shell.terminal.said().len();
        shell.back(before);
        (patient, world.path("after2").exists())
    });
    let Some((_, after)) = seen else { return };
    assert!(!after);
}

#[test]
fn a_window_that_is_closed_reaches_it() {
    for how in [How::Bare, How::Exec] {
        let world = World::new(how);
        let Some(mut shell) = Shell::start(&world) else {
            return;
        };
        shell.line(&count(&world));
        let counting = world.counting("seen");
        shell.terminal.hang_up();
        counting.wait_seen(libc::SIGHUP);
        counting.end();
        wait_until("its end", || {
            !lives(counting.known_as()) && !lives(counting.pid)
        });
    }
}
