//! `plimsoll run --live`: the same run in a process of its own, with the live screen of it.
//!
//! In a process of its own the screen's memory is none of the run's, and what ends the run leaves
//! the screen.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use plimsoll_tui::live::screen::{run as show, terminal};
use plimsoll_tui::live::source::child::{ChildHandle, ChildSource};
use plimsoll_tui::live::source::{SocketSource, Source};

use super::{Done, top};
use crate::output::complain;
use crate::run::INTERRUPTED;

/// What a run has to make its models and begin.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Said before a run is ended that goes on.
const ENDS: &str = "The run goes on. Leaving interrupts it: everything is dropped, and reported.";

pub(super) fn run(publish: Option<&Path>) -> Done {
    terminal::check()?;
    let config = top::read_config(None)?;
    let interval = config.interval;
    let folder = tempfolder()?;
    let socket = match publish {
        Some(path) => path.to_owned(),
        None => folder.path().join("run.sock"),
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments(std::env::args_os().skip(1)));
    if publish.is_none() {
        command.arg("--publish").arg(&socket);
    }
    let connect = move |socket: &Path| {
        let source = SocketSource::connect(socket, interval)?;
        Ok(Box::new(source) as Box<dyn Source>)
    };
    let child = ChildSource::start(command, &socket, PATIENCE, Box::new(connect))?;
    let handle = child.handle();
    let finished = show(Box::new(child), &config, Some(ENDS.to_owned()))?;
    let code = report(&handle)?;
    if let Some(failed) = &finished.failed {
        complain(failed);
    }
    Ok(code)
}

/// The same arguments, without what asks for the screen.
fn arguments(given: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut options = true;
    given.filter(move |argument| {
        options &= argument != "--";
        !(options && argument == "--live")
    })
}

/// Prints what the run printed, and gives the code that it ended with.
fn report(handle: &ChildHandle) -> Result<ExitCode, io::Error> {
    handle.write_stderr(&mut io::stderr())?;
    let mut stdout = io::stdout().lock();
    handle.write_stdout(&mut stdout)?;
    stdout.flush()?;
    let code = handle.outcome().and_then(|status| status.code());
    let code = code.and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(INTERRUPTED)))
}

/// A folder that nobody else can look into, for the socket.
fn tempfolder() -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("plimsoll-").tempdir()
}
