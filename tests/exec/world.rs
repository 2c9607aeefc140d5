//! A folder of its own for each case, and a program run bare or under `exec` in it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::probe;

/// Nothing that is waited for takes so long, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Bare,
    Exec,
}

pub const BOTH: [How; 2] = [How::Bare, How::Exec];

/// A folder, and how programs are run in it.
pub struct World {
    dir: tempfile::TempDir,
    pub how: How,
}

impl World {
    pub fn new(how: How) -> World {
        let dir = tempfile::tempdir().unwrap();
        // What scripts go by: they end where it is gone, as after a test that failed.
        std::fs::write(dir.path().join("here"), "").unwrap();
        World { dir, how }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn name(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().unwrap()
    }

    /// What stands before a command to run it as this world does.
    pub fn prefix(&self) -> Vec<String> {
        match self.how {
            How::Bare => Vec::new(),
            How::Exec => self.exec(&[]),
        }
    }

    /// `plimsoll exec` with some options, its report out of the way.
    pub fn exec(&self, options: &[&str]) -> Vec<String> {
        let report = self.name("report");
        let fixed = [env!("CARGO_BIN_EXE_plimsoll"), "exec", "-o", &report];
        let all = fixed.into_iter().chain(options.iter().copied());
        all.chain(["--"]).map(str::to_owned).collect()
    }

    pub fn command<S: AsRef<str>>(&self, words: &[S]) -> Command {
        let words = words.iter().map(|word| word.as_ref().to_owned());
        self.plain(self.prefix().into_iter().chain(words))
    }

    /// These words, whatever this world is.
    pub fn plain(&self, words: impl IntoIterator<Item = String>) -> Command {
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(self.dir.path());
        // `exec` cannot remove what it keeps there when it is killed.
        command.env("TMPDIR", self.dir.path());
        command
    }

    /// The words of a probe.
    pub fn probe(words: &[&str]) -> Vec<String> {
        let own = std::env::current_exe().unwrap();
        let own = own.into_os_string().into_string().unwrap();
        let fixed = [own, probe::WORD.to_owned()];
        let words = words.iter().map(|word| (*word).to_owned());
        fixed.into_iter().chain(words).collect()
    }

    pub fn probing(&self, words: &[&str]) -> Command {
        self.command(&World::probe(words))
    }

    /// The same words, for a shell.
    pub fn line(&self, words: &[String]) -> String {
        let quote = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
        let all: Vec<String> = self.prefix().iter().chain(words).map(quote).collect();
        all.join(" ")
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A file that a probe writes at once.
    pub fn wait_file(&self, name: &str) -> String {
        wait_until(&format!("{name}, {:?}", self.how), || {
            self.path(name).exists()
        });
        self.text(name)
    }

    /// What a probe that counts has seen; waits until it counts.
    pub fn counting(&self, name: &str) -> Counting<'_> {
        wait_until(&format!("{name} of a probe, {:?}", self.how), || {
            self.text(name).contains("ready")
        });
        let text = self.text(name);
        let number = |key: &str| -> i32 {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap().trim().parse().unwrap()
        };
        Counting {
            world: self,
            name: name.to_owned(),
            pid: number("pid "),
            parent: number("parent "),
        }
    }
}

/// A probe that counts.
pub struct Counting<'a> {
    world: &'a World,
    name: String,
    pub pid: i32,
    parent: i32,
}

impl Counting<'_> {
    /// Whom a parent knows as the program.
    pub fn known_as(&self) -> i32 {
        match self.world.how {
            How::Bare => self.pid,
            How::Exec => self.parent,
        }
    }

    pub fn seen(&self) -> Vec<i32> {
        let text = self.world.text(&self.name);
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    pub fn wait_seen(&self, signal: i32) {
        wait_until(
            &format!("signal {signal}, {:?}: {:?}", self.world.how, self.seen()),
            || self.seen().contains(&signal),
        );
    }

    /// Waits until what was sent until now has arrived; gives how often each signal has.
    pub fn settled(&self, signal: i32) -> usize {
        self.wait_seen(signal);
        let before = self.count(probe::fence());
        send(self.known_as(), probe::fence());
        wait_until("the fence", || self.count(probe::fence()) > before);
        self.count(signal)
    }

    pub fn count(&self, signal: i32) -> usize {
        self.seen().iter().filter(|seen| **seen == signal).count()
    }

    pub fn end(&self) {
        send(self.known_as(), probe::over());
    }
}

pub fn send(pid: i32, signal: i32) {
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill {pid} {signal}");
}

/// What the kernel tells of a process from its state on.
fn stat(pid: i32) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(") ").next().unwrap_or("");
    rest.split_whitespace().map(str::to_owned).collect()
}

/// Its letter; `X` where there is none.
pub fn state(pid: i32) -> char {
    let letter = stat(pid).first().and_then(|state| state.chars().next());
    letter.unwrap_or('X')
}

pub fn parent(pid: i32) -> i32 {
    stat(pid)[1].parse().unwrap()
}

/// Whether there is such a process, that has not ended.
pub fn lives(pid: i32) -> bool {
    !matches!(state(pid), 'Z' | 'X')
}

pub fn wait_until(what: &str, is: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for its end, and kills it where that does not come.
pub fn end_of(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Without the bit that tells of a core, which is the program's alone.
pub fn raw(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.into_raw() & !0x80
}

/// Where the system lacks a program, says so.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    let has = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    if !has {
        println!("skipped: there is no {program} here");
    }
    has
}
