//! What it starts and leaves behind.

use std::io::Read;
use std::process::Stdio;

use crate::world::{BOTH, How, World, end_of, lives, raw, send, wait_until};

/// Ends itself, and leaves a process of another session that says when it is there, and waits for
/// a file before it says that it ended.
const DAEMON: &str = "setsid sh -c 'echo $$ > pid; until [ -e go ] || [ ! -e here ]; do sleep 0.02; done; : > done' \
    </dev/null >/dev/null 2>&1 & until [ -s pid ]; do sleep 0.02; done; exit 3";

#[test]
fn a_daemon_is_followed_to_its_end() {
    let world = World::new(How::Exec);
    let mut exec = world.plain(world.exec(&["--json"]).into_iter().chain(script(DAEMON)));
    let mut child = exec.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 64];
    // It says that it follows; only then the daemon goes.
    child.stderr.take().unwrap().read_exact(&mut said).unwrap();
    assert!(String::from_utf8_lossy(&said).contains("the command has ended"));
    assert!(!world.path("done").exists());
    std::fs::write(world.path("go"), "").unwrap();
    assert_eq!(raw(end_of(&mut child)), 3 << 8);
    assert!(world.path("done").exists());
}

#[test]
fn a_daemon_is_left_where_it_is_not_to_be_followed_and_at_ctrl_c() {
    for follow in [false, true] {
        let world = World::new(How::Exec);
        let options: &[&str] = if follow { &[] } else { &["--no-follow"] };
        let mut exec = world.plain(world.exec(options).into_iter().chain(script(DAEMON)));
        let mut child = exec.stderr(Stdio::piped()).spawn().unwrap();
        if follow {
            let mut said = [0; 64];
            child.stderr.take().unwrap().read_exact(&mut said).unwrap();
            send(child.id().cast_signed(), libc::SIGINT);
        }
        assert_eq!(raw(end_of(&mut child)), 3 << 8);
        let pid: i32 = world.text("pid").trim().parse().unwrap();
        assert!(lives(pid));
        std::fs::write(world.path("go"), "").unwrap();
        wait_until("its end", || world.path("done").exists());
    }
}

#[test]
fn many_short_children_and_their_prints_are_as_bare() {
    let short =
        "i=0; while [ $i -lt 200 ]; do i=$((i+1)); printf '\\000\\377' & done; wait; exit 6";
    let seen = BOTH.map(|how| {
        let world = World::new(how);
        let output = world.command(&["sh", "-c", short]).output().unwrap();
        (output.status.code(), output.stdout.len(), output.stderr)
    });
    assert_eq!(seen[0], seen[1]);
    assert_eq!((seen[0].0, seen[0].1), (Some(6), 400));
}

/// Ends come while the sampler looks at what ends.
#[test]
fn what_ends_at_any_moment_ends_as_bare() {
    for turn in 0..20 {
        let world = World::new(How::Exec);
        let pause = format!("sleep 0.{:03}; exit 4", turn * 7);
        let words = world
            .exec(&["--interval", "5ms"])
            .into_iter()
            .chain(script(&pause));
        assert_eq!(
            raw(end_of(&mut world.plain(words).spawn().unwrap())),
            4 << 8
        );
    }
}

#[test]
fn no_process_of_exec_is_left_nor_counted() {
    let world = World::new(How::Exec);
    let words = world.exec(&["--json", "--interval", "5ms"]).into_iter();
    let words = words.chain(["sleep", "0.3"].map(str::to_owned));
    assert!(end_of(&mut world.plain(words).spawn().unwrap()).success());
    let report: serde_json::Value = serde_json::from_str(&world.text("report")).unwrap();
    assert_eq!(report["processes_seen"], 1, "{report:#}");
}

#[test]
fn one_that_ignores_the_end_of_its_time_is_killed_after_the_grace() {
    let world = World::new(How::Exec);
    let ignored = libc::SIGTERM.to_string();
    let probe = World::probe(&["count", &world.name("seen"), "ignoring", &ignored]);
    let words = world.exec(&["--for", "1s"]).into_iter().chain(probe);
    let mut child = world.plain(words).spawn().unwrap();
    assert_eq!(raw(end_of(&mut child)), libc::SIGKILL);
    assert!(
        world.text("report").contains("did not end"),
        "{}",
        world.text("report")
    );
}

#[test]
fn one_that_heeds_the_end_of_its_time_ends_by_it() {
    let world = World::new(How::Exec);
    let words = world.exec(&["--for", "300ms"]).into_iter();
    let words = words.chain(["sleep", "100"].map(str::to_owned));
    assert_eq!(
        raw(end_of(&mut world.plain(words).spawn().unwrap())),
        libc::SIGTERM
    );
}

fn script(script: &str) -> [String; 3] {
    ["sh", "-c", script].map(str::to_owned)
}
