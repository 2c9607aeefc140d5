//! Where publications lie, and what becomes of them when processes die, fork and clash.

#![allow(clippy::unwrap_used)]

use std::fs::{self, DirBuilder, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use plimsoll_events::{Kind, Publication, PublishError, Stream, connect, published};

const INSIDE: &str = "PLIMSOLL_TEST_INSIDE";

fn begin(path: Option<&Path>) -> Result<Publication, PublishError> {
    Publication::begin(&Stream::silent(), path.map(Path::to_owned), || {
        vec![Kind::Note {
            text: format!("from {}", std::process::id()),
        }]
    })
}

fn refusal(path: Option<&Path>) -> String {
    begin(path).unwrap_err().to_string()
}

/// What a publication says first.
fn greeting(path: &Path) -> String {
    match connect(path).unwrap().next_event().unwrap().unwrap().kind {
        Kind::Note { text } => text,
        other => panic!("{other:?} is no note"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The test of this name again, in a process with its own folder for sockets.
fn again(name: &str, role: &str, runtime: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("XDG_RUNTIME_DIR", runtime)
        .env(INSIDE, role);
    command
}

fn role() -> Option<String> {
    std::env::var(INSIDE).ok()
}

/// Runs the rest of a test in such a process, which gets a folder that goes with it.
fn inside(name: &str) {
    let runtime = tempfile::tempdir().unwrap();
    let output = again(name, "test", runtime.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    assert!(text.contains("1 passed"), "{text}{error}");
}

fn runtime() -> PathBuf {
    PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap())
}

/// A process that publishes until it is killed.
struct Publisher(Child, PathBuf);

impl Publisher {
    fn start(name: &str, runtime: &Path) -> Publisher {
        let mut child = again(name, "publisher", runtime)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let path = lines
            .map(Result::unwrap)
            .find_map(|line| Some(PathBuf::from(line.split_once("publishes on ")?.1)))
            .unwrap();
        Publisher(child, path)
    }

    /// What such a process does.
    fn act(path: Option<&Path>) {
        let publication = begin(path).unwrap();
        println!("publishes on {}", publication.path().display());
        // Until it is killed, or the test is gone.
        let _ = std::io::stdin().read_line(&mut String::new());
        println!("{publication:?} ends in order");
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn publications_have_names_by_process_in_a_folder_of_their_own_and_are_found() {
    const NAME: &str = "publications_have_names_by_process_in_a_folder_of_their_own_and_are_found";
    match role().as_deref() {
        None => return inside(NAME),
        Some("publisher") => return Publisher::act(None),
        Some(_) => {}
    }
    let pid = std::process::id();
    let folder = runtime().join("plimsoll");
    let ours = |path: &PathBuf| path.starts_with(&folder);
    assert!(!published().iter().any(|found| ours(&found.path)));
    let [first, second, third] = [(); 3].map(|()| begin(None).unwrap());
    assert_eq!(first.path(), folder.join(format!("{pid}.sock")));
    assert_eq!(second.path(), folder.join(format!("{pid}-2.sock")));
    assert_eq!((mode(&folder), mode(first.path())), (0o700, 0o600));
    drop(second);
    let other = Publisher::start(NAME, &runtime());

    let program = fs::read_to_string("/proc/self/comm").unwrap();
    let mut expected = vec![
        (pid, first.path().to_owned()),
        (pid, third.path().to_owned()),
        (other.0.id(), other.1.clone()),
    ];
    expected.sort_by_key(|(pid, _)| *pid);
    let mut found = published();
    found.retain(|found| ours(&found.path));
    for (found, (pid, path)) in found.iter().zip(&expected) {
        assert_eq!((found.pid, &found.path), (*pid, path));
        assert_eq!(found.program.as_deref(), Some(program.trim_end()));
        assert_eq!(greeting(path), format!("from {pid}"));
    }
    assert_eq!(found.len(), expected.len());
    drop((first, third, other));
    assert!(!published().iter().any(|found| ours(&found.path)));
}

#[test]
fn what_a_killed_process_left_is_not_found_and_the_next_removes_it() {
    const NAME: &str = "what_a_killed_process_left_is_not_found_and_the_next_removes_it";
    match role().as_deref() {
        None => return inside(NAME),
        Some("publisher") => return Publisher::act(None),
        Some(_) => {}
    }
    let mut killed = Publisher::start(NAME, &runtime());
    let alive = Publisher::start(NAME, &runtime());
    killed.kill();
    let (left, pid) = (&killed.1, killed.0.id());
    assert!(fs::symlink_metadata(left).unwrap().file_type().is_socket());
    assert!(published().iter().all(|found| found.path != *left));
    assert!(matches!(connect(left), Err(PublishError::Nobody { .. })));

    // What only looks like it: no socket, a socket of another name, one that still answers.
    let folder = left.parent().unwrap();
    let file = folder.join(format!("{pid}-2.sock"));
    fs::write(&file, "kept").unwrap();
    let named = folder.join("notes.sock");
    drop(UnixListener::bind(&named).unwrap());
    let answers = folder.join(format!("{pid}-3.sock"));
    let _listener = UnixListener::bind(&answers).unwrap();
    let part = folder.join(format!(".{pid}-0.part"));
    drop(UnixListener::bind(&part).unwrap());

    let next = begin(None).unwrap();
    assert!(!left.exists() && !part.exists());
    assert!(file.exists() && named.exists() && answers.exists());
    assert_eq!(greeting(&alive.1), format!("from {}", alive.0.id()));
    assert!(next.path().exists());
}

#[test]
fn a_folder_that_is_not_ours_alone_is_refused() {
    const NAME: &str = "a_folder_that_is_not_ours_alone_is_refused";
    if role().is_none() {
        return inside(NAME);
    }
    let folder = runtime().join("plimsoll");
    let elsewhere = runtime().join("elsewhere");
    DirBuilder::new().mode(0o700).create(&elsewhere).unwrap();
    symlink(&elsewhere, &folder).unwrap();
    let error = refusal(None);
    assert!(error.starts_with(folder.to_str().unwrap()), "{error}");
    assert!(error.contains("symbolic link"), "{error}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);

    fs::remove_file(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    assert!(refusal(None).contains("not a folder"));

    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o750)).unwrap();
    let error = refusal(None);
    assert!(error.contains("0750") && error.contains("0700"), "{error}");

    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    begin(None).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
        assert!(refusal(None).contains("belongs to user 65534"));
        assert!(
            published()
                .iter()
                .all(|found| !found.path.starts_with(&folder))
        );
    }
}

#[test]
fn at_a_path_only_a_dead_socket_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    fs::write(&path, "kept").unwrap();
    let error = refusal(Some(&path));
    assert!(
        error.contains("no socket") && error.contains("another path"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    assert!(matches!(
        connect(&path),
        Err(PublishError::NotASocket { .. })
    ));
    fs::remove_file(&path).unwrap();
    symlink(folder.path().join("nowhere"), &path).unwrap();
    assert!(refusal(Some(&path)).contains("no socket"));
    fs::remove_file(&path).unwrap();

    drop(UnixListener::bind(&path).unwrap());
    let publication = begin(Some(&path)).unwrap();
    let error = refusal(Some(&path));
    assert!(
        error.contains("somebody publishes there already"),
        "{error}"
    );
    greeting(&path);
    drop(publication);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing stays"
    );

    let publication = begin(Some(&path)).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(publication);
    assert!(path.exists(), "what another put there stays");
}

#[test]
fn a_folder_that_somebody_keeps_locked_is_an_error_only_where_something_is_to_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let locked = fs::File::open(folder.path()).unwrap();
    locked.lock().unwrap();
    greeting(begin(Some(&path)).unwrap().path());
    drop(UnixListener::bind(&path).unwrap());
    assert!(refusal(Some(&path)).contains("keeps the folder locked"));
    assert!(path.exists());
    locked.unlock().unwrap();
    greeting(begin(Some(&path)).unwrap().path());
}

#[test]
fn of_many_that_want_one_path_one_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    for _ in 0..300 {
        drop(UnixListener::bind(&path).unwrap());
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads = [(); 8].map(|()| scope.spawn(|| begin(Some(&path))));
            threads.map(|thread| thread.join().unwrap()).into()
        });
        assert_eq!(all.iter().filter(|result| result.is_ok()).count(), 1);
        greeting(&path);
        drop(all);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_path_that_does_not_fit_or_cannot_be_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(120));
    let error = refusal(Some(&long));
    assert!(
        error.contains(&format!("{} bytes", long.as_os_str().len())),
        "{error}"
    );
    assert!(error.contains("may have 107"), "{error}");
    // The longest that fits does, and is found by its name.
    let room = 107 - folder.path().as_os_str().len() - 1;
    let longest = folder.path().join("x".repeat(room));
    let publication = begin(Some(&longest)).unwrap();
    greeting(&longest);
    drop(publication);
    assert!(refusal(Some(&folder.path().join("no/s.sock"))).contains("No such file"));
    assert!(refusal(Some(Path::new("/"))).contains("does not end in a name"));
    assert!(refusal(Some(Path::new(""))).contains("does not end in a name"));
    let nowhere = connect(&folder.path().join("no.sock")).unwrap_err();
    assert!(nowhere.to_string().contains("still running"), "{nowhere}");
    assert!(connect(&long).is_err());
}

#[test]
fn a_fork_neither_removes_the_socket_nor_ends_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let mut publication = Some(begin(Some(&path)).unwrap());
    let mut command = Command::new("true");
    // SAFETY: in the fork this only closes descriptors and frees memory.
    unsafe {
        command.pre_exec(move || {
            drop(publication.take());
            Ok(())
        });
    }
    assert!(command.status().unwrap().success());
    assert!(path.exists());
    greeting(&path);
    // The one of this process is in the closure.
    drop(command);
    assert!(!path.exists());
}
