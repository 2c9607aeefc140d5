//! What is shown, as a file.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;

use super::reader::Picture;
use crate::live::summary::Summary;

/// So many names are tried, for a file that is not there yet.
const TRIES: u32 = 1000;

/// Writes what is shown to a new file here.
pub(super) fn write(picture: &Picture) -> io::Result<PathBuf> {
    let summary = Summary::of(&picture.state, &picture.about);
    let mut text = serde_json::to_vec_pretty(&summary)?;
    text.push(b'\n');
    let pid = picture.state.opened.as_ref().map(|opened| opened.pid);
    let pid = picture.about.pid.or(pid).unwrap_or(0);
    for number in 1..=TRIES {
        let path = PathBuf::from(format!("plimsoll-top-{pid}-{number}.json"));
        let made = OpenOptions::new().write(true).create_new(true).open(&path);
        match made {
            Ok(mut file) => {
                return match file.write_all(&text) {
                    Ok(()) => Ok(path),
                    Err(error) => {
                        // Half a file is none.
                        let _ = std::fs::remove_file(&path);
                        Err(error)
                    }
                };
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("there are {TRIES} such files here already; move them away"),
    ))
}
