//! Processes with descendants, all of which end with the test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use malloc_stats::inspect::{Family, FamilyReading, MemberReading};

/// A process in a group of its own, and what it says.
pub struct Tree {
    pub child: Child,
    output: BufReader<ChildStdout>,
}

impl Tree {
    pub fn grow(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.process_group(0).spawn().unwrap();
        Self {
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    pub fn shell(script: &str) -> Self {
        Self::grow(Command::new("sh").args(["-c", script]))
    }

    /// A C program; `None`, and words, where there is no C compiler.
    pub fn compiled(test: &str, source: &str, arguments: &[&str]) -> Option<Self> {
        let name = format!("family-{test}-{}", std::process::id());
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests")
            .join(source);
        let compiled = Command::new("cc")
            .args(["-O1", "-pthread", "-o"])
            .args([&program, &source])
            .status();
        match compiled {
            Ok(status) => assert!(status.success(), "{} does not compile", source.display()),
            Err(error) => {
                println!("skipped: no C compiler (cc: {error})");
                return None;
            }
        }
        let tree = Self::grow(Command::new(&program).args(arguments));
        std::fs::remove_file(program).unwrap();
        Some(tree)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn family(&self) -> Family {
        Family::of(self.pid()).unwrap()
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The number that it says next.
    pub fn number(&mut self) -> u32 {
        self.line().parse().unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let group = i32::try_from(self.pid()).unwrap();
        // SAFETY: signals the group of the child, which is not waited for yet, so its number is
        // nobody else's.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

/// Reads until it is so, and gathers who began and ended meanwhile; long enough for a loaded
/// machine.
#[track_caller]
pub fn until(family: &mut Family, so: impl Fn(&FamilyReading) -> bool) -> FamilyReading {
    let begun = Instant::now();
    let (mut began, mut ended) = (Vec::new(), Vec::new());
    loop {
        let mut reading = family.read();
        began.append(&mut reading.began);
        ended.append(&mut reading.ended);
        if so(&reading) {
            return FamilyReading {
                began,
                ended,
                ..reading
            };
        }
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(60), "never: {reading:#?}");
        sleep(Duration::from_millis(5));
    }
}

#[track_caller]
pub fn member(reading: &FamilyReading, pid: u32) -> &MemberReading {
    let found = reading.members.iter().find(|member| member.pid == pid);
    found.unwrap_or_else(|| panic!("{pid} is none of {reading:#?}"))
}

pub fn pids(reading: &FamilyReading) -> Vec<u32> {
    reading.members.iter().map(|member| member.pid).collect()
}

/// Ends a process, whoever's child it is.
pub fn kill(pid: u32) {
    let pid = i32::try_from(pid).unwrap();
    // SAFETY: signals a process that a test made, and that lives.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}
