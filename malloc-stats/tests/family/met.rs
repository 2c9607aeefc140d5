//! Who is a member.

use std::process::Command;

use malloc_stats::inspect::{Family, TargetError};

use crate::own_process::in_own_process;
use crate::processes::Forked;
use crate::tree::{Tree, kill, member, pids, until};

#[test]
fn children_and_grandchildren_are_members() {
    let mut shell = Tree::shell(
        "exec 3<&0; sleep 1000 & echo $!; sh -c 'sleep 1000 & echo $!; read line; :' <&3 & echo $!; wait",
    );
    let mut family = shell.family();
    // The inner shell and the outer one speak in any order.
    let mut expected = vec![shell.pid(), shell.number(), shell.number(), shell.number()];
    expected.sort_unstable();
    // Before they run `sleep` they are shells.
    let reading = until(&mut family, |reading| {
        let sleeps = reading
            .members
            .iter()
            .filter(|member| member.name == "sleep");
        sleeps.count() == 2
    });
    assert_eq!(pids(&reading), expected);
    let parents = |name: &str| {
        let named = reading.members.iter().filter(|member| member.name == name);
        named.map(|member| member.parent).collect::<Vec<_>>()
    };
    assert_eq!(parents("sleep").len(), 2, "{reading:#?}");
    assert!(parents("sleep").contains(&shell.pid()), "{reading:#?}");
    assert!(parents("sh").contains(&shell.pid()), "{reading:#?}");
    assert!(parents("sh").contains(&std::process::id()), "{reading:#?}");
    assert!(!reading.truncated && reading.unread == 0);
    assert_eq!((family.ended(), family.ended_count()), (&[][..], 0));
}

#[test]
fn each_fork_is_met_at_the_next_reading() {
    let mut shell = Tree::shell("while read line; do sleep 1000 & echo $!; done");
    let mut family = shell.family();
    assert_eq!(family.read().began, [(shell.pid(), "sh".to_owned())]);
    for _ in 0..40 {
        assert_eq!(family.read().began, []);
        shell.say("fork");
        let child = shell.number();
        let began: Vec<u32> = family.read().began.iter().map(|(pid, _)| *pid).collect();
        assert_eq!(began, [child]);
    }
    assert_eq!(family.read().members.len(), 41);
}

#[test]
fn what_was_discovered_in_between_is_told_at_the_next_reading() {
    let mut shell =
        Tree::shell("read line; sleep 1000 & echo $!; read line; kill $!; wait; read line");
    let mut family = shell.family();
    family.read();
    shell.say("fork");
    let child = shell.number();
    family.discover();
    shell.say("end it");
    let reading = until(&mut family, |reading| reading.members.len() == 1);
    // Its name is that of the shell until it runs the program.
    assert_eq!(reading.began.first().map(|(pid, _)| *pid), Some(child));
    assert_eq!(reading.ended.first().map(|(pid, _)| *pid), Some(child));
    assert_eq!(family.ended()[0].pid, child);
}

#[test]
fn children_of_a_second_thread_are_members() {
    let Some(mut program) = Tree::compiled("second", "family/threads.c", &[]) else {
        return;
    };
    let child = program.number();
    let mut family = program.family();
    let reading = family.read();
    assert_eq!(pids(&reading), [program.pid(), child]);
    assert_eq!(member(&reading, program.pid()).threads, 2);
    assert_eq!(member(&reading, child).threads, 1);
}

#[test]
fn a_member_stays_one_whoever_becomes_its_parent() {
    let mut shell =
        Tree::shell("exec 3<&0; sh -c 'sleep 1000 & echo $!; read line' <&3 & echo $!; wait");
    let (one, other) = (shell.number(), shell.number());
    let mut family = shell.family();
    let reading = until(&mut family, |reading| {
        reading.members.iter().any(|member| member.name == "sleep")
    });
    let sleeps = reading.members.iter().find(|member| member.name == "sleep");
    let sleeps = sleeps.unwrap().clone();
    let between = if sleeps.pid == one { other } else { one };
    assert_eq!(sleeps.parent, between);
    shell.say("end");
    let reading = until(&mut family, |reading| {
        pids(reading)
            .iter()
            .all(|pid| *pid != between && *pid != shell.child.id())
    });
    assert_eq!(pids(&reading), [sleeps.pid]);
    assert_eq!(member(&reading, sleeps.pid).started, sleeps.started);
    assert_ne!(member(&reading, sleeps.pid).parent, between);
}

/// A process of its own, as it must wait for whatever the tests beside it leave behind.
#[test]
fn daemons_that_fork_twice_are_below_a_subreaper() {
    const NAME: &str = "met::daemons_that_fork_twice_are_below_a_subreaper";
    in_own_process(NAME, &[], || {
        // SAFETY: takes numbers only.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
        let own = std::process::id();
        let mut family = Family::below(own).unwrap();
        let script = "(setsid sh -c 'echo $$; exec sleep 1000' &)";
        let mut shell = Tree::shell(script);
        let daemon = shell.number();
        // The pipe stays open in the daemon; the shell is waited for.
        assert!(shell.child.wait().unwrap().success());
        let reading = until(&mut family, |reading| {
            reading.members.iter().any(|member| member.name == "sleep")
        });
        assert_eq!(pids(&reading), [daemon]);
        assert_eq!(member(&reading, daemon).parent, own);
        kill(daemon);
        // Nobody waits for it yet.
        let reading = until(&mut family, |reading| reading.members.is_empty());
        assert_eq!(reading.ended, [(daemon, "sleep".to_owned())]);
        assert_eq!((family.read().began, family.ended_count()), (Vec::new(), 1));
        // SAFETY: waits for a child.
        unsafe { libc::waitpid(i32::try_from(daemon).unwrap(), std::ptr::null_mut(), 0) };
        assert!(family.read().members.is_empty());
    });
}

#[test]
fn what_is_left_out_is_no_member_nor_is_what_is_below_it() {
    let mut shell = Tree::shell(
        "exec 3<&0; sh -c 'read l; sleep 1000 & echo $!; read l' <&3 & echo $!; sleep 1000 & echo $!; wait",
    );
    let (helper, other) = (shell.number(), shell.number());
    let mut family = shell.family();
    family.except(helper).unwrap();
    shell.say("fork");
    let below = shell.number();
    let reading = until(&mut family, |reading| reading.members.len() >= 2);
    assert_eq!(pids(&reading), [shell.pid(), other]);
    let all = shell.family().read();
    assert!(pids(&all).contains(&helper) && pids(&all).contains(&below));
    assert!(matches!(
        family.except(u32::MAX),
        Err(TargetError::NoSuchProcess { pid: u32::MAX })
    ));
}

#[test]
fn processes_of_python_are_members() {
    let script = "import multiprocessing, sys, time\n\
                  if __name__ == '__main__':\n\
                  \x20   workers = [multiprocessing.Process(target=time.sleep, args=(1000,)) for _ in range(3)]\n\
                  \x20   [worker.start() for worker in workers]\n\
                  \x20   print(*[worker.pid for worker in workers], flush=True)\n\
                  \x20   sys.stdin.readline()\n";
    if Command::new("python3")
        .args(["-c", "import multiprocessing"])
        .status()
        .is_err()
    {
        println!("skipped: no python3");
        return;
    }
    let mut python = Tree::grow(Command::new("python3").args(["-c", script]));
    let mut family = python.family();
    let line = python.line();
    let workers: Vec<u32> = line.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(workers.len(), 3);
    let reading = family.read();
    for worker in workers {
        let worker = member(&reading, worker);
        assert!(worker.process.rss.bytes().unwrap() > 0, "{worker:#?}");
        assert!(worker.name.starts_with("python"), "{worker:#?}");
        // They were forked only, and have copies of the memory.
        assert!(!worker.shares_memory, "{worker:#?}");
    }
}

#[test]
fn there_must_be_a_process_to_begin_with() {
    for error in [Family::of(u32::MAX), Family::below(u32::MAX)] {
        let error = error.unwrap_err();
        assert!(
            matches!(error, TargetError::NoSuchProcess { pid: u32::MAX }),
            "{error}"
        );
    }
    // The thread of a test is not the first one.
    // SAFETY: has no arguments.
    let thread = u32::try_from(unsafe { libc::gettid() }).unwrap();
    let own = std::process::id();
    let error = Family::of(thread).unwrap_err();
    assert!(
        matches!(error, TargetError::Thread { pid, process } if (pid, process) == (thread, own)),
        "{error}"
    );
}

#[test]
fn a_name_is_what_the_process_says() {
    let forked = Forked::named(c"a) R 1 \x1b[31m");
    let reading = Family::of(forked.pid).unwrap().read();
    assert_eq!(member(&reading, forked.pid).name, "a) R 1 \u{1b}[31m");
    assert_eq!(member(&reading, forked.pid).parent, std::process::id());
}
