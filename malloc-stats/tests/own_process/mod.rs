//! A test in a process of its own: the settings of malloc are the process's, some only hold from
//! its start, and other tests would disturb its numbers.

use std::process::Command;

const CHILD: &str = "MALLOC_STATS_TEST_CHILD";

/// Runs `fact` in a new process, and fails as it fails.
///
/// `name` is the name of the calling test: the new process is this test binary, asked for that one
/// test, which libtest runs on a second thread.
pub fn in_own_process(name: &str, environment: &[(&str, &str)], fact: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some_and(|child| child == name) {
        fact();
        return;
    }
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    // Whatever tunes malloc outside must not reach the fact.
    for (variable, _) in std::env::vars_os() {
        let variable_name = variable.to_string_lossy();
        if variable_name.starts_with("MALLOC_") || variable_name == "GLIBC_TUNABLES" {
            command.env_remove(&variable);
        }
    }
    command.env_remove("LD_PRELOAD").env(CHILD, name);
    command.envs(environment.iter().copied());
    let output = command.output().expect("a test binary can start itself");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{name} in its own process:\n{out}\n{err}"
    );
    assert!(
        out.contains("1 passed"),
        "{name} did not run in its own process:\n{out}\n{err}"
    );
}
