//! What is not as bare, and is told in docs/tuning.md.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use crate::world::{BOTH, World, end_of, send};

fn relations(arrange: impl Fn(&mut Command)) -> [String; 2] {
    BOTH.map(|how| {
        let world = World::new(how);
        let mut command = world.probing(&["relations", &world.name("relations")]);
        arrange(&mut command);
        assert!(end_of(&mut command.spawn().unwrap()).success());
        world.text("relations")
    })
}

/// Nothing of this is seen by a program that does not ask for it.
#[test]
fn exec_leads_the_group_and_the_session_and_ends_the_program_with_itself() {
    let told = |group, session, end| {
        format!(
            "leads its group: {group}\nleads its session: {session}\nat the end of its parent: {end}\n"
        )
    };
    let seen = relations(|_| ());
    assert_eq!(
        seen,
        [told(false, false, 0), told(false, false, libc::SIGKILL)]
    );
    let seen = relations(|command| {
        command.process_group(0);
    });
    assert_eq!(
        seen,
        [told(true, false, 0), told(false, false, libc::SIGKILL)]
    );
    let seen = relations(|command| {
        // SAFETY: one system call, without arguments.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                Ok(())
            });
        }
    });
    assert_eq!(
        seen,
        [told(true, true, 0), told(false, false, libc::SIGKILL)]
    );
}

/// An orphan becomes the child of `exec`, which looks at it; bare, that of the first process, or of
/// whoever else asked for orphans.
#[test]
fn an_orphan_is_a_child_of_exec() {
    let script = "(until [ -e left ] || [ ! -e here ]; do sleep 0.02; done) & exit 0";
    let world = World::new(crate::world::How::Exec);
    let mut child = world.command(&["sh", "-c", script]).spawn().unwrap();
    let children_of =
        |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    crate::world::wait_until("the orphan", || {
        let children = children_of(child.id()).unwrap_or_default();
        // The witness, and the orphan: the program has ended.
        let is_sh = |pid: &str| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sh\n")
        };
        children.split_whitespace().any(is_sh)
    });
    std::fs::write(world.path("left"), "").unwrap();
    assert!(end_of(&mut child).success());
}

/// A core is written for the program, not for `exec`; so the status does not tell of one.
#[test]
fn the_status_does_not_tell_of_a_core() {
    let world = World::new(crate::world::How::Exec);
    let abort = libc::SIGABRT.to_string();
    let status = end_of(&mut world.probing(&["die", &abort]).spawn().unwrap());
    assert_eq!(status.signal(), Some(libc::SIGABRT));
    assert!(!status.core_dumped());
}

/// It tells `exec` of the ends of children, and is not told on.
#[test]
fn sigchld_is_not_handed_on() {
    let world = World::new(crate::world::How::Exec);
    let mut child = world
        .probing(&["count", &world.name("seen")])
        .spawn()
        .unwrap();
    let counting = world.counting("seen");
    send(counting.known_as(), libc::SIGCHLD);
    send(counting.known_as(), libc::SIGUSR1);
    assert_eq!(counting.settled(libc::SIGUSR1), 1);
    assert_eq!(counting.count(libc::SIGCHLD), 0);
    counting.end();
    assert_eq!(end_of(&mut child).code(), Some(7));
}
