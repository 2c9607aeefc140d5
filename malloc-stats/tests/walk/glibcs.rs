//! The C libraries to test on, and the targets built for them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A glibc: the installed one, or one unpacked somewhere and run through its own loader.
#[derive(Debug, Clone)]
pub struct Glibc {
    /// The directory's name, such as `2.41`; `None` for the installed one.
    unpacked: Option<(String, PathBuf)>,
}

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unpacked {
            Some((version, _)) => write!(f, "glibc {version}"),
            None => f.write_str("the installed glibc"),
        }
    }
}

impl Glibc {
    pub const INSTALLED: Self = Self { unpacked: None };

    /// The installed one, and those below `PLIMSOLL_GLIBCS`, the oldest first.
    pub fn all() -> Vec<Self> {
        static SAID: OnceLock<()> = OnceLock::new();
        let Some(directory) = std::env::var_os("PLIMSOLL_GLIBCS") else {
            SAID.get_or_init(|| {
                eprintln!("only on the installed glibc: PLIMSOLL_GLIBCS is not set");
            });
            return vec![Self::INSTALLED];
        };
        let mut unpacked: Vec<_> = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("PLIMSOLL_GLIBCS={}: {error}", directory.display()))
            .filter_map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name()?.to_str()?.to_owned();
                let number = minor(&name)?;
                Some((number, (name, loader_below(&path)?)))
            })
            .collect();
        assert!(
            !unpacked.is_empty(),
            "PLIMSOLL_GLIBCS={} holds no glibc: run scripts/fetch-glibc",
            directory.display()
        );
        unpacked.sort();
        let unpacked = unpacked.into_iter().map(|(_, glibc)| Self {
            unpacked: Some(glibc),
        });
        std::iter::once(Self::INSTALLED).chain(unpacked).collect()
    }

    /// The target `heap` on this glibc; `None`, said, where it cannot be built.
    pub fn heap(&self) -> Option<Command> {
        match &self.unpacked {
            Some((_, loader)) => {
                let program = old_program()?;
                Some(through(loader, &[], program))
            }
            None => {
                static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
                let program = PROGRAM.get_or_init(|| build("heap", &["-pthread"], &["-ldl"]));
                program.as_ref().map(Command::new)
            }
        }
    }

    /// `program` on this glibc, which may be older than the program needs: then it does not start.
    pub fn run(&self, program: &Path) -> Command {
        match &self.unpacked {
            Some((_, loader)) => through(loader, &["/usr/lib/x86_64-linux-gnu"], program),
            None => Command::new(program),
        }
    }

    pub fn is_installed(&self) -> bool {
        self.unpacked.is_none()
    }
}

/// The target `heap`, static and stripped.
pub fn static_heap() -> Option<Command> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let flags = ["-static", "-s", "-pthread", "-DHEAP_STATIC"];
    let program = PROGRAM.get_or_init(|| build("heap-static", &flags, &[]));
    program.as_ref().map(Command::new)
}

/// 41 of `2.41`.
pub fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("2.")?.parse().ok()
}

fn loader_below(directory: &Path) -> Option<PathBuf> {
    ["usr/lib", "lib"]
        .map(|lib| {
            directory
                .join(lib)
                .join("x86_64-linux-gnu/ld-linux-x86-64.so.2")
        })
        .into_iter()
        .find(|loader| loader.exists())
}

fn through(loader: &Path, also: &[&str], program: &Path) -> Command {
    let mut path = loader.parent().unwrap().as_os_str().to_owned();
    for directory in also {
        path.push(":");
        path.push(directory);
    }
    let mut command = Command::new(loader);
    command.arg("--library-path").arg(path).arg(program);
    command
}

/// The target, linked against the oldest glibc there is: it runs on every newer one.
fn old_program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let all = Glibc::all();
        let (_, loader) = all.iter().find_map(|glibc| glibc.unpacked.as_ref())?;
        let libraries = loader.parent()?;
        let linked =
            ["libc.so.6", "libpthread.so.0", "libdl.so.2"].map(|name| libraries.join(name));
        let mut last: Vec<_> = linked.iter().filter_map(|path| path.to_str()).collect();
        let rpath = format!("-Wl,-rpath-link,{}", libraries.display());
        last.extend(["-lgcc", &rpath]);
        build("heap-old", &["-nodefaultlibs"], &last)
    });
    program.as_deref()
}

/// The target that allocates and frees at full speed, for ever.
pub fn allocating() -> Option<Command> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let program =
        PROGRAM.get_or_init(|| build_from("allocating.c", "allocating", &["-pthread"], &[]));
    program.as_ref().map(Command::new)
}

/// A program without a C library, which waits.
pub fn bare() -> Option<Command> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let program =
        PROGRAM.get_or_init(|| build_from("bare.c", "bare", &["-nostdlib", "-static"], &[]));
    program.as_ref().map(Command::new)
}

fn build(name: &str, first: &[&str], last: &[&str]) -> Option<PathBuf> {
    build_from("heap.c", name, first, last)
}

/// Builds a target; `None`, said, without a C compiler, or without a static libc.
fn build_from(source: &str, name: &str, first: &[&str], last: &[&str]) -> Option<PathBuf> {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets");
    let source = targets.join(source);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Put in place whole: an older one may still be running.
    let unfinished = program.with_extension(std::process::id().to_string());
    let built = Command::new("cc")
        .args([
            "-O1",
            "-Wall",
            "-Wextra",
            "-fno-builtin",
            "-U_FORTIFY_SOURCE",
        ])
        .args(first)
        .arg(source)
        .arg("-o")
        .arg(&unfinished)
        .args(last)
        .output();
    let built = match built {
        Ok(built) => built,
        Err(error) => {
            eprintln!("skipped: no C compiler builds {name}: cc: {error}");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&built.stderr);
    if !built.status.success() && first.contains(&"-static") && said.contains("cannot find -l") {
        eprintln!("skipped: no static libc to build {name} with: {said}");
        return None;
    }
    assert!(built.status.success(), "cc does not build {name}:\n{said}");
    std::fs::rename(&unfinished, &program).unwrap();
    Some(program)
}
