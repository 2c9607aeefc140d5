//! Sockets that are not what they should be, processes that go, and floods.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::thread::JoinHandle;

use rustix::process::Signal;
use serde_json::Value;

use crate::world::{Foreign, Steps, World};

/// Publishes by itself: what is done with whoever connects, one after the other.
fn publish(
    world: &World,
    clients: usize,
    serve: impl Fn(&mut UnixStream) + Send + 'static,
) -> JoinHandle<()> {
    let listener = UnixListener::bind(world.path("made.sock")).unwrap();
    std::thread::spawn(move || {
        for _ in 0..clients {
            let (mut client, _) = listener.accept().unwrap();
            serve(&mut client);
        }
    })
}

const OPENED: &str = "{\"v\":2,\"seq\":0,\"at_us\":0,\"event\":\"note\",\"text\":\"begun\"}\n";

#[test]
fn a_socket_that_nobody_answers_is_told() {
    let world = World::new();
    drop(UnixListener::bind(world.path("stale.sock")).unwrap());
    let said = world.refused(["top", "stale.sock", "--once"]);
    assert!(
        said.contains("stale.sock: nobody publishes there"),
        "{said}"
    );
}

#[test]
fn a_socket_that_speaks_nonsense_or_stops_at_once_is_told() {
    for (words, says) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "line 1: not an event"),
        (
            "{\"v\":99,\"seq\":0,\"at_us\":0,\"event\":\"note\",\"text\":\"\"}\n",
            "version 99",
        ),
        ("{\"v\":2,\"seq\":0,", "cut off after 15 bytes"),
        ("", "nobody publishes there"),
    ] {
        let world = World::new();
        let server = publish(&world, 1, move |client| {
            client.write_all(words.as_bytes()).unwrap();
        });
        let said = world.refused(["top", "made.sock", "--once"]);
        assert!(
            said.contains("made.sock") && said.contains(says),
            "{words}: {said}"
        );
        server.join().unwrap();
    }
}

#[test]
fn a_cache_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can be another user");
        return;
    }
    let world = World::new();
    let served = world.served(Steps::Calm, &[]);
    for folder in ["", "run", "run/plimsoll"] {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(world.path(folder), open).unwrap();
    }
    let output = world
        .command(["top", served.at(), "--once"])
        .uid(65534)
        .output()
        .unwrap();
    let said = crate::world::text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(served.at()), "{said}");
    assert!(said.to_lowercase().contains("permission denied"), "{said}");
}

#[test]
fn a_stream_that_stops_in_a_line_leaves_its_last_picture_and_says_so() {
    let world = World::new();
    let server = publish(&world, 1, |client| {
        client.write_all(OPENED.as_bytes()).unwrap();
        client.write_all(b"{\"v\":2,\"seq\":1,\"at").unwrap();
    });
    let mut top = world.top(&["made.sock"], (120, 36));
    top.wait_text("ENDED");
    top.wait_text("in the middle of a line, after 18 bytes");
    server.join().unwrap();
    top.send("q");
    assert_eq!(top.wait().code(), Some(0));
}

#[test]
fn a_run_that_ends_leaves_its_last_picture_with_the_reason_and_can_be_saved() {
    let world = World::new();
    for (signal, why) in [(Signal::INT, "exit code 130"), (Signal::KILL, "SIGKILL")] {
        let mut served = world.served(Steps::Calm, &[]);
        let pid = served.pid();
        let mut top = world.top(&[&pid.to_string()], (120, 36));
        top.wait_text("4 of 4 resident");
        top.wait_text("walk ");
        served.signal(signal);
        served.wait();
        top.wait_text("ENDED");
        let last = top.wait_text(why);
        assert!(last.contains("alpha"), "{last}");
        top.send("t");
        top.wait_text("it has ended");
        top.send("w");
        let name = format!("plimsoll-top-{pid}-1.json");
        top.wait_text(&name);
        let saved = std::fs::read(world.path(&name)).unwrap();
        let saved: Value = serde_json::from_slice(&saved).unwrap();
        assert!(
            saved["ended"]["why"].as_str().unwrap().contains(why),
            "{saved:#}"
        );
        assert_eq!(saved["models"].as_array().unwrap().len(), 4);
        top.send("q");
        assert_eq!(top.wait().code(), Some(0));
        assert_eq!(top.damage(), [""; 0]);
    }
}

#[test]
fn a_process_that_is_killed_is_said_to_be() {
    let world = World::new();
    for kill in [true, false] {
        let mut process = Foreign::begin();
        let mut top = world.top(&[&process.pid()], (120, 36));
        top.wait_text("walk ");
        let why = if kill {
            process.kill();
            "SIGKILL"
        } else {
            process.end();
            "exit code 0"
        };
        top.wait_text("ENDED");
        top.wait_text(why);
        top.send("q");
        assert_eq!(top.wait().code(), Some(0));
    }
}

#[test]
fn a_million_events_a_minute_leave_keys_their_answer() {
    let world = World::new();
    let server = publish(&world, 1, |client| {
        // More than a million a minute: as fast as they are taken.
        for seq in 0..200_000_u64 {
            let line = format!(
                "{{\"v\":2,\"seq\":{seq},\"at_us\":{},\"event\":\"refuse\",\"models\":[\"m{}\"],\
                 \"tier\":\"ram\",\"reason\":\"exceeds_budget\",\"asked_bytes\":9,\
                 \"budget_bytes\":4,\"pinned_bytes\":2}}\n",
                seq * 60,
                seq % 7
            );
            if client.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
        // Until whoever reads is gone.
        let _ = std::io::copy(client, &mut std::io::sink());
    });
    let mut top = world.top(&["made.sock"], (120, 36));
    top.wait_text("REFUSE");
    for _ in 0..10 {
        top.send("?");
        top.wait_text("┌HELP");
        top.send("?");
        top.wait_for("no help", |screen| !screen.contains("┌HELP"));
    }
    top.send("6e");
    top.wait_text("newest first, last 1024 of 200000");
    top.send("w");
    top.wait_text("written to");
    top.send("q");
    assert_eq!(top.wait().code(), Some(0));
    server.join().unwrap();
}
