//! What cannot be looked at is refused with the reason and the way out.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use malloc_stats::inspect::{Barrier, Status, Target, TargetError};

use crate::processes::{Forked, NOBODY, Shell, as_nobody, become_nobody, is_root};

#[test]
fn a_number_that_nobody_has_is_no_process() {
    for pid in [0, u32::MAX, 1 << 23] {
        let error = Target::open(pid).unwrap_err();
        assert!(
            matches!(error, TargetError::NoSuchProcess { pid: p } if p == pid),
            "{error}"
        );
        assert!(error.to_string().contains("plimsoll ps"), "{error}");
    }
}

#[test]
fn a_thread_leads_to_its_process() {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: reads a number.
        tell.send(unsafe { libc::gettid() }).unwrap();
        let _ = ended.recv();
    });
    let tid = u32::try_from(told.recv().unwrap()).unwrap();
    let error = Target::open(tid).unwrap_err();
    let own = std::process::id();
    assert!(
        matches!(error, TargetError::Thread { process, .. } if process == own),
        "{error}"
    );
    drop(end);
    thread.join().unwrap();
}

#[test]
fn a_thread_of_the_kernel_has_no_memory() {
    if !std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
        println!("skipped: no kernel thread can be seen from this container");
        return;
    }
    let error = Target::open(2).unwrap_err();
    assert!(
        matches!(&error, TargetError::KernelThread { pid: 2, .. }),
        "{error}"
    );
    let error = Target::find("kthreadd").unwrap_err();
    assert!(matches!(error, TargetError::KernelThread { .. }), "{error}");
}

#[test]
fn a_zombie_is_told_with_who_should_wait_for_it() {
    let child = Forked::named(c"plimsoll-zombie");
    child.kill();
    for error in [
        Target::open(child.pid).unwrap_err(),
        Target::find("plimsoll-zombie").unwrap_err(),
    ] {
        let own = std::process::id();
        let named = matches!(&error, TargetError::Zombie { parent, .. } if *parent == own);
        assert!(named, "{error}");
        assert!(
            error.to_string().contains(&format!("its parent {own} (")),
            "{error}"
        );
    }
}

#[test]
fn a_process_whose_first_thread_ended_is_not_called_a_zombie() {
    let script = "import ctypes, threading, time\n\
        threading.Thread(target=lambda: time.sleep(100)).start()\n\
        time.sleep(0.2)\n\
        ctypes.CDLL(None).syscall(60, 0)";
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the number of exit(2) is written down for x86_64 only");
        return;
    }
    let spawned = Command::new("python3").args(["-c", script]).spawn();
    let Ok(child) = spawned else {
        println!("skipped: no python3 here");
        return;
    };
    let child = Shell(child);
    let pid = child.0.id();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    while !state().contains("State:\tZ") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let error = Target::open(pid).unwrap_err();
    assert!(
        matches!(error, TargetError::FirstThreadEnded { threads: 1, .. }),
        "{error}"
    );
}

/// A program of 32 bits that waits for a signal for ever: `elf(5)`, and `pause(2)` by `int 0x80`.
fn program_of_32_bits() -> Vec<u8> {
    const AT: u32 = 0x0804_8000;
    let code = [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7];
    let length = u32::try_from(84 + code.len()).unwrap();
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |elf: &mut Vec<u8>, n: u16| elf.extend(n.to_le_bytes());
    let word = |elf: &mut Vec<u8>, n: u32| elf.extend(n.to_le_bytes());
    half(&mut elf, 2);
    half(&mut elf, 3);
    for n in [1, AT + 84, 52, 0, 0] {
        word(&mut elf, n);
    }
    for n in [52, 32, 1, 0, 0, 0] {
        half(&mut elf, n);
    }
    for n in [1, 0, AT, AT, length, length, 5, 0x1000] {
        word(&mut elf, n);
    }
    elf.extend(code);
    elf
}

#[test]
fn a_program_of_32_bits_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("thirty-two");
    std::fs::write(&path, program_of_32_bits()).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let child = match Command::new(&path).spawn() {
        Ok(child) => Shell(child),
        Err(error) => {
            println!("skipped: this kernel runs no programs of 32 bits: {error}");
            return;
        }
    };
    let error = Target::open(child.0.id()).unwrap_err();
    assert!(
        matches!(&error, TargetError::ThirtyTwoBits { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("thirty-two"), "{error}");
}

#[test]
fn a_process_of_another_user_is_public_in_part() {
    let child = is_root().then(|| Forked::named(c"of-root"));
    let pid = child.as_ref().map_or(1, |child| child.pid);
    as_nobody(|| {
        let target = Target::open(pid).unwrap();
        // SAFETY: reads a number.
        let us = unsafe { libc::syscall(libc::SYS_geteuid) };
        let error = target.readable().unwrap_err();
        let TargetError::Denied(denial) = &error else {
            panic!("{error}");
        };
        let ours = u32::try_from(us).unwrap();
        assert_eq!(denial.why, Barrier::OtherUser { theirs: 0, ours });
        let status = Status::read(&target).unwrap();
        assert_eq!(status.uid, 0);
        assert!(status.memory.rss.bytes() > Some(0));
        assert!(status.oom_score.is_some());
        assert_eq!(target.changed(), None);
        assert!(target.smaps().is_err());
    });
}

#[test]
fn a_process_that_is_not_dumpable_is_told_from_one_of_another_user() {
    let open = |dumpable: libc::c_ulong| {
        let root = is_root();
        let child = Forked::new(|| {
            if root {
                become_nobody();
            }
            // SAFETY: sets a flag of the process.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, dumpable) };
        });
        as_nobody(|| Target::open(child.pid).unwrap().readable())
    };
    let error = open(0).unwrap_err();
    let TargetError::Denied(denial) = &error else {
        panic!("{error}");
    };
    assert_eq!(denial.why, Barrier::NotDumpable, "{error}");
    match open(1) {
        Ok(()) => {}
        // Yama forbids what the flag allows.
        Err(TargetError::Denied(denial)) => assert!(matches!(denial.why, Barrier::Yama(_))),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn one_group_more_is_told_as_such() {
    if !is_root() {
        println!("skipped: only root can start a process of another group");
        return;
    }
    let child = Forked::new(|| {
        // SAFETY: these change the credentials of this process, and touch no memory.
        unsafe {
            libc::syscall(libc::SYS_setresgid, 1, 1, 1);
            libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY);
            libc::prctl(libc::PR_SET_DUMPABLE, 1);
        }
    });
    let error = as_nobody(|| Target::open(child.pid).unwrap().readable()).unwrap_err();
    let TargetError::Denied(denial) = &error else {
        panic!("{error}");
    };
    let group = Barrier::OtherGroup {
        theirs: 1,
        ours: NOBODY,
    };
    assert_eq!(denial.why, group);
}
