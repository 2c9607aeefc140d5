//! Which programs decide whether a profile was in force.
#![allow(clippy::unwrap_used)]

use malloc_stats::{Metric, Process as Memory, Setting, SettingGrade};
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn member(pid: u32, mib: u64) -> MemberReading {
    MemberReading {
        pid,
        started: u64::from(pid) * 10,
        process: Memory {
            rss: Metric::Exact(mib * MIB),
            ..Memory::default()
        },
        ..MemberReading::default()
    }
}

fn identity(file: u64) -> Option<Identity> {
    Some(Identity {
        file: (1, file),
        environment: 0,
    })
}

fn judgement(name: &str, refused: &[&str]) -> Judgement {
    let mut settings = Settings::default();
    let grade = match refused {
        [] => SettingGrade::Verified,
        _ => SettingGrade::Refused,
    };
    let value = name.to_owned();
    settings.insert("allocator", Setting { value, grade });
    Judgement {
        name: name.to_owned(),
        allocator: Some(name.to_owned()),
        settings,
        refused: refused.iter().map(|&what| what.to_owned()).collect(),
    }
}

fn tried(name: &str, mib: u64, refused: &[&str]) -> Tried {
    Tried {
        most: mib * MIB,
        judgement: judgement(name, refused),
    }
}

#[test]
fn a_small_helper_that_refuses_is_a_note_and_a_large_one_decides() {
    let helper = || tried("busybox", 1, &["musl serves"]);
    let program = || tried("server", 300, &[]);
    let found = InForce::of(vec![helper(), program()], 300 * MIB);
    assert_eq!(found.allocator, "server");
    assert!(found.refused.is_empty());
    let note = "busybox, which never held more than 1.0 MiB: musl serves";
    assert_eq!(found.notes, [note]);
    let found = InForce::of(vec![helper(), program()], 20 * MIB);
    assert_eq!(found.refused, ["busybox: musl serves"]);
    assert!(found.notes.is_empty());
    let found = InForce::of(vec![helper()], MIB);
    assert_eq!(found.allocator, "busybox");
    assert_eq!(found.refused.len(), 1);
}

#[test]
fn of_what_holds_next_to_nothing_nothing_is_concluded_about_the_rest() {
    let found = InForce::of(vec![tried("sh", 1, &[])], 300 * MIB);
    assert_eq!(found, InForce::default());
    assert_eq!(InForce::of(Vec::new(), 0), InForce::default());
}

#[test]
fn many_small_processes_of_one_program_are_a_large_program() {
    let (start, later) = (Instant::now(), Instant::now() + IN_PLACE);
    let members: Vec<MemberReading> = (1..=40).map(|pid| member(pid, 2)).collect();
    let mut programs = Programs::default();
    programs.meet(&members, start);
    for _ in 0..3 {
        programs.identify(&members, later, |pid| identity(u64::from(pid == 40)));
    }
    programs.meet(&members, later);
    let due = programs.due(&members).unwrap();
    programs.judge(due.program, judgement("workers", &["no"]));
    let other = programs.due(&members).unwrap();
    programs.judge(other.program, judgement("other", &[]));
    assert_ne!(due.program, other.program);
    assert_eq!(programs.due(&members), None);
    let mut most: Vec<u64> = programs
        .into_tried()
        .iter()
        .map(|one| one.most / MIB)
        .collect();
    most.sort_unstable();
    assert_eq!(most, [2, 78]);
}

#[test]
fn a_program_is_asked_about_once_and_not_before_it_is_in_place() {
    let start = Instant::now();
    let members = [member(1, 5), member(2, 9)];
    let mut programs = Programs::default();
    programs.meet(&members, start);
    programs.identify(&members, start, |_| panic!("too early"));
    assert_eq!(programs.due(&members), None);
    let later = start + IN_PLACE;
    programs.identify(&members, later, |_| identity(7));
    let due = programs.due(&members).unwrap();
    assert_eq!(due.pid, 2, "the larger one");
    programs.judge(due.program, judgement("glibc", &[]));
    assert_eq!(programs.due(&members), None, "one is enough");
    // Another program in the same process is another one.
    let executed = MemberReading {
        executed: true,
        ..member(2, 3)
    };
    programs.meet(&[member(1, 5), executed], later);
    programs.identify(&members, later, |_| panic!("too early again"));
    programs.identify(&members, later + IN_PLACE, |_| identity(8));
    assert_eq!(programs.due(&members).unwrap().pid, 2);
}

#[test]
fn who_serves_is_asked_again_until_it_is_known_but_not_for_ever() {
    let start = Instant::now();
    let members = [member(1, 5)];
    let nobody = || Judgement {
        allocator: None,
        ..judgement("it", &[])
    };
    let mut programs = Programs::default();
    programs.meet(&members, start);
    assert_eq!(programs.next_in_place(), Some(start + IN_PLACE));
    programs.identify(&members, start + IN_PLACE, |_| identity(7));
    assert_eq!(programs.next_in_place(), None);
    for _ in 0..MOST_TRIES {
        let due = programs.due(&members).unwrap();
        programs.judge(due.program, nobody());
    }
    assert_eq!(programs.due(&members), None);
    programs.judge(0, judgement("glibc", &[]));
    programs.judge(0, nobody());
    let tried = programs.into_tried();
    assert_eq!(tried[0].judgement.allocator.as_deref(), Some("glibc"));
}

#[test]
fn what_nobody_knows_is_asked_about_once() {
    let start = Instant::now();
    let members = [member(1, 5)];
    let mut programs = Programs::default();
    programs.meet(&members, start);
    programs.identify(&members, start + IN_PLACE, |_| None);
    programs.identify(&members, start + IN_PLACE, |_| panic!("again"));
    assert_eq!(programs.due(&members), None);
}

#[test]
fn other_values_of_the_profile_s_variables_make_another_program() {
    let names = ["GLIBC_TUNABLES".to_owned(), "LD_PRELOAD".to_owned()];
    let of = |environ: &[u8]| hashed(environ, &names);
    let with = of(b"PWD=/a\0GLIBC_TUNABLES=x=1\0");
    assert_eq!(with, of(b"PWD=/b\0_=/bin/c\0GLIBC_TUNABLES=x=1\0"));
    assert_ne!(with, of(b"PWD=/a\0"));
    assert_ne!(with, of(b"GLIBC_TUNABLES=x=2\0"));
    assert_eq!(of(b""), of(b"PWD\0\0=\0\xff\xfe\0"));
}

#[test]
fn this_process_is_known_and_one_that_is_not_there_is_not() {
    let pid = std::process::id();
    assert!(Identity::of(pid, &[]).is_some());
    assert_eq!(Identity::of(pid, &[]), Identity::of(pid, &[]));
    assert_eq!(Identity::of(u32::MAX, &[]), None);
}

proptest! {
    #[test]
    fn any_coming_and_going_stays_bounded(
        steps in prop::collection::vec(
            prop::collection::btree_map(0_u32..200, (0_u64..4, any::<u64>(), any::<bool>()), 0..40),
            0..20,
        ),
    ) {
        let start = Instant::now();
        let mut programs = Programs::default();
        for (at, step) in (0_u32..).zip(steps) {
            let members: Vec<MemberReading> = step
                .iter()
                .map(|(pid, (started, rss, executed))| MemberReading {
                    pid: *pid,
                    started: *started,
                    executed: *executed,
                    process: Memory { rss: Metric::Upper(*rss), ..Memory::default() },
                    ..MemberReading::default()
                })
                .collect();
            let now = start + IN_PLACE * at;
            programs.meet(&members, now);
            programs.identify(&members, now, |pid| identity(u64::from(pid)));
            if let Some(due) = programs.due(&members) {
                let is_there = members.iter().any(|member| member.pid == due.pid);
                prop_assert!(is_there);
                programs.judge(due.program, judgement("any", &[]));
            }
            prop_assert!(programs.processes.len() <= members.len());
            prop_assert!(programs.known.len() <= MOST_PROGRAMS);
        }
        let tried = programs.into_tried();
        let _ = InForce::of(tried, u64::MAX);
    }
}
