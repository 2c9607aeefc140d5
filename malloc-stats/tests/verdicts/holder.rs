//! Processes of `holds.c`, and what is said of them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use malloc_stats::inspect::{Ask, Inspection, Severity, Target, Verdict, inspect};
use malloc_stats::{Metric, limits::Limits};

pub const MIB: u64 = 1 << 20;

/// The program, built once; `None` without a compiler, which is said.
pub fn program() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| build("holds")).as_deref()
}

/// A program of this directory; `None` without a compiler, which is said.
pub fn build(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verdicts");
    let built = Command::new("cc")
        .args(["-O1", "-fno-builtin-malloc", "-pthread", "-o"])
        .args([&path, &directory.join(format!("{name}.c"))])
        .output();
    match built {
        Ok(output) if output.status.success() => Some(path),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!("skipped: cc is not there: {error}");
            None
        }
    }
}

/// A process that holds still, and ends with this.
pub struct Holder {
    child: Child,
    output: BufReader<ChildStdout>,
    /// What it knows of itself.
    pub said: HashMap<String, u64>,
}

impl Holder {
    /// `holds ARGUMENTS`, with these words in its environment; `None` without a compiler.
    pub fn new(arguments: &[&str], environment: &[(&str, &str)]) -> Option<Self> {
        let mut command = Command::new(program()?);
        command.args(arguments).envs(environment.iter().copied());
        Some(Self::start(&mut command))
    }

    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let said = HashMap::new();
        let mut holder = Self {
            child,
            output,
            said,
        };
        holder.until_ready();
        holder
    }

    fn until_ready(&mut self) {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended: {:?}", self.child.wait());
            match line.trim().split_once(' ') {
                Some((name, number)) => {
                    self.said.insert(name.to_owned(), number.parse().unwrap());
                }
                None if line.trim() == "ready" => return,
                None => panic!("{line}"),
            }
        }
    }

    /// Lets it go on, until it holds still again.
    pub fn step(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.until_ready();
    }

    /// Its own word where it gives one: what was started may be a script that starts it.
    fn pid(&self) -> u32 {
        let said = self
            .said
            .get("pid")
            .and_then(|pid| u32::try_from(*pid).ok());
        said.unwrap_or(self.child.id())
    }

    pub fn inspect(&self) -> Inspection {
        self.inspect_as(&Ask::default())
    }

    pub fn inspect_as(&self, ask: &Ask) -> Inspection {
        let target = Target::open(self.pid()).unwrap();
        inspect(&target, ask).unwrap()
    }

    pub fn verdicts_with_limits(&self) -> Vec<Verdict> {
        self.inspect().verdicts
    }

    /// What is said of it, but for what the machine it runs on is short of.
    pub fn verdicts(&self) -> Vec<Verdict> {
        of_process(self.inspect())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The verdicts, without those of limits and pressure, which other processes bring about.
pub fn of_process(mut inspection: Inspection) -> Vec<Verdict> {
    inspection.limits = Limits::default();
    inspection.pressure = None;
    malloc_stats::inspect::judge(&inspection)
}

pub fn find<'a>(verdicts: &'a [Verdict], lint: &str) -> Option<&'a Verdict> {
    verdicts.iter().find(|verdict| verdict.lint == lint)
}

/// The verdict of this lint, which must be there and this grave.
pub fn must<'a>(verdicts: &'a [Verdict], lint: &str, severity: Severity) -> &'a Verdict {
    let found = find(verdicts, lint).unwrap_or_else(|| panic!("no {lint}: {verdicts:#?}"));
    assert_eq!(found.severity, severity, "{found:#?}");
    for sentence in [&found.finding, &found.remedy] {
        assert!(
            !sentence.contains('\n') && !sentence.ends_with('.'),
            "{sentence}"
        );
    }
    println!("{lint}: {}\n    -> {}", found.finding, found.remedy);
    found
}

pub fn must_not(verdicts: &[Verdict], lint: &str) {
    assert_eq!(find(verdicts, lint), None, "{verdicts:#?}");
}

/// `metric` is there, and off `truth` by at most `most` bytes.
pub fn near(metric: Metric, truth: u64, most: u64) {
    let bytes = metric.bytes().unwrap();
    assert!(bytes.abs_diff(truth) <= most, "{bytes} is not {truth}");
}
