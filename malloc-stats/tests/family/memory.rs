//! The memory of members, and their sum.

use std::cell::Cell;
use std::ffi::c_void;
use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;

use malloc_stats::inspect::{Family, Status, Target};
use malloc_stats::{Grade, Metric};

use crate::processes::{Forked, as_nobody};
use crate::tree::{Tree, member, pids, until};

const SIZE: usize = 32 << 20;

/// Maps so many bytes and touches all of them. Does not allocate.
pub fn touch(size: usize) -> *mut c_void {
    // SAFETY: maps new memory, and writes to that only.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let at = libc::mmap(std::ptr::null_mut(), size, access, flags, -1, 0);
        assert_ne!(at, libc::MAP_FAILED);
        std::ptr::write_bytes(at.cast::<u8>(), 1, size);
        at
    }
}

#[test]
fn of_one_member_it_is_what_a_look_reads() {
    let forked = Forked::new(|| {});
    let reading = Family::of(forked.pid).unwrap().read();
    let status = Status::read(&Target::open(forked.pid).unwrap()).unwrap();
    let only = member(&reading, forked.pid);
    // The process sleeps.
    assert_eq!(only.process, status.memory);
    assert_eq!(reading.total, status.memory);
    assert_eq!(
        (&only.name, u64::from(only.threads)),
        (&status.command, status.threads)
    );
    assert!(reading.at_us > 0 && !reading.cost.is_zero());
}

#[test]
fn the_sum_of_several_is_an_upper_bound() {
    let mut shell = Tree::shell("sleep 1000 & echo; read line");
    shell.line();
    let mut family = shell.family();
    let reading = until(&mut family, |reading| {
        reading.members.iter().any(|member| member.name == "sleep")
    });
    let sum = |of: fn(&malloc_stats::Process) -> Metric| {
        let all = reading
            .members
            .iter()
            .map(|member| of(&member.process).bytes());
        all.sum::<Option<u64>>()
    };
    let total = reading.total;
    assert_eq!(total.rss.bytes(), sum(|process| process.rss));
    assert_eq!(total.anon.bytes(), sum(|process| process.anon));
    assert_eq!(total.file.bytes(), sum(|process| process.file));
    assert_eq!(total.hwm.bytes(), sum(|process| process.hwm));
    for metric in [total.rss, total.anon, total.file, total.shmem, total.swap] {
        assert!(metric.grade() >= Grade::Upper, "{total:?}");
    }
    assert_eq!(total.hwm.grade(), Grade::Estimated);
    let faults = reading
        .members
        .iter()
        .map(|member| member.process.minor_faults);
    assert_eq!(total.minor_faults, faults.sum::<u64>());
}

/// A copy of this process that touches memory, and runs `sleep` once it is told.
struct Executes {
    pid: u32,
    go: Option<File>,
}

impl Executes {
    fn new() -> Self {
        let mut ready = [0; 2];
        let mut go = [0; 2];
        // SAFETY: pipe2(2) writes two descriptors. After the fork the child makes system calls
        // only, and takes its memory from mmap(2).
        let pid = unsafe {
            assert_eq!(libc::pipe2(ready.as_mut_ptr(), libc::O_CLOEXEC), 0);
            assert_eq!(libc::pipe2(go.as_mut_ptr(), libc::O_CLOEXEC), 0);
            let pid = libc::fork();
            if pid == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::close(go[1]);
                touch(SIZE);
                libc::write(ready[1], c"r".as_ptr().cast(), 1);
                libc::read(go[0], [0_u8; 1].as_mut_ptr().cast(), 1);
                let arguments = [c"sleep".as_ptr(), c"1000".as_ptr(), std::ptr::null()];
                libc::execvp(c"sleep".as_ptr(), arguments.as_ptr());
                libc::_exit(127);
            }
            assert!(pid > 0);
            libc::close(ready[1]);
            libc::close(go[0]);
            pid
        };
        // SAFETY: the descriptors were made above, and nobody else has them.
        let (mut ready, go) = unsafe { (File::from_raw_fd(ready[0]), File::from_raw_fd(go[1])) };
        ready.read_exact(&mut [0]).unwrap();
        Self {
            pid: u32::try_from(pid).unwrap(),
            go: Some(go),
        }
    }
}

impl Drop for Executes {
    fn drop(&mut self) {
        let pid = i32::try_from(self.pid).unwrap();
        // SAFETY: the child is there until it is waited for.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }
}

#[test]
fn another_program_begins_with_less_but_the_peak_stays() {
    let mut executes = Executes::new();
    let mut family = Family::of(executes.pid).unwrap();
    let before = family.read().members.remove(0);
    assert!(!before.executed && before.process.rss.bytes() >= Some(SIZE as u64));
    executes.go = None;
    // A reading may fall between the new memory and the new name.
    let executed = Cell::new(false);
    let reading = until(&mut family, |reading| {
        let only = &reading.members[0];
        executed.set(executed.get() || only.executed);
        only.name == "sleep" && executed.get()
    });
    let after = &family.read().members[0];
    assert_eq!((after.pid, after.started), (before.pid, before.started));
    assert!(after.process.rss.bytes() < Some(SIZE as u64), "{after:#?}");
    // It may have touched a little more before it became another.
    let peak = after.process.hwm;
    assert!(peak.bytes() >= before.process.hwm.bytes(), "{after:#?}");
    assert_eq!((reading.began, reading.ended), (Vec::new(), Vec::new()));
    drop(executes);
    family.read();
    assert_eq!(family.ended()[0].peak, peak);
}

#[test]
fn a_second_program_is_noticed_as_well_as_the_first() {
    let mut shell = Tree::shell("echo; read line; exec sh -c 'echo; read line'");
    shell.line();
    let mut family = shell.family();
    assert!(!family.read().members[0].executed);
    shell.say("go on");
    shell.line();
    let reading = family.read();
    assert!(reading.members[0].executed, "{reading:#?}");
    assert_eq!(reading.members[0].name, "sh");
    assert!(!family.read().members[0].executed);
}

#[test]
fn memory_that_a_child_shares_with_its_parent_counts_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments = [file.path().to_str().unwrap()];
    let Some(mut program) = Tree::compiled("vfork", "pause/vforking.c", &arguments) else {
        return;
    };
    assert_eq!(program.line(), "READY");
    let check = || {
        let mut family = program.family();
        let reading = until(&mut family, |reading| reading.members.len() == 2);
        let parent = member(&reading, program.child.id());
        let child = reading
            .members
            .iter()
            .find(|member| member.pid != parent.pid);
        let child = child.unwrap();
        assert!(child.shares_memory && !parent.shares_memory, "{reading:#?}");
        assert_eq!(child.process.rss.bytes(), parent.process.rss.bytes());
        assert_eq!(reading.total.rss, parent.process.rss);
        (family, child.pid)
    };
    let (mut family, child) = check();
    // Without the permission to ask the kernel.
    as_nobody(check);
    program.child.stdin = None;
    let reading = until(&mut family, |reading| reading.members.len() == 1);
    assert_eq!(pids(&reading), [program.pid()]);
    let ended = family.ended().iter().find(|ended| ended.pid == child);
    assert_eq!(ended.unwrap().peak, Metric::Unavailable);
}

#[test]
fn a_process_whose_first_thread_has_ended_has_its_memory_still() {
    let Some(mut program) = Tree::compiled("leader", "family/threads.c", &["ends"]) else {
        return;
    };
    let child = program.number();
    let mut family = program.family();
    let stat = format!("/proc/{}/stat", program.pid());
    let reading = until(&mut family, |_| {
        std::fs::read_to_string(&stat).unwrap().contains(") Z ")
    });
    let _ = reading;
    let reading = family.read();
    assert_eq!(pids(&reading), [program.pid(), child]);
    let memory = member(&reading, program.pid()).process;
    assert!(memory.anon.bytes() >= Some(SIZE as u64), "{reading:#?}");
    assert_eq!(reading.ended, []);
}
