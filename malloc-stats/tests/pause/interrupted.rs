//! Which blocking calls of the target a pause ends.

use malloc_stats::inspect::pause::Paused;

use crate::{Target, until};

/// As the module's documentation says.
const ENDED: [&str; 11] = [
    "epoll_wait",
    "epoll_pwait",
    "semop",
    "semtimedop",
    "sigtimedwait",
    "sigwaitinfo",
    "recv+SO_RCVTIMEO",
    "accept+SO_RCVTIMEO",
    "send+SO_SNDTIMEO",
    "io_getevents",
    "io_uring_enter",
];

#[test]
fn some_blocking_calls_return_eintr_and_the_others_go_on() {
    let Some(mut target) = Target::start("waiting", "waiting.c", &[]) else {
        return;
    };
    until("every thread sleeps", || {
        target
            .of_threads("State")
            .iter()
            .all(|state| state.starts_with('S'))
    });
    Paused::stop(target.pid()).unwrap().release().unwrap();
    until("every thread sleeps, or has ended", || {
        target
            .of_threads("State")
            .iter()
            .all(|state| state.starts_with('S'))
    });
    target.say("report");
    let mut ended = Vec::new();
    loop {
        let line = target.line();
        match line.split_once(' ') {
            Some((call, "EINTR")) => ended.push(call.to_owned()),
            Some((call, "absent")) => {
                println!("not asked: {call}, which this kernel does not offer here");
                assert!(ENDED.contains(&call));
                ended.push(call.to_owned());
            }
            Some((_, "blocked")) => {}
            Some(_) => panic!("{line}"),
            None => break assert_eq!(line, "."),
        }
    }
    assert_eq!(ended, ENDED);
    drop(target.input.take());
    assert!(target.child.wait().unwrap().success());
}
