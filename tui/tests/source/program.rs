//! Programs to look at, which end with the test.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// A program that goes on at the next line of its input.
pub struct Program(pub Child);

impl Program {
    pub fn shell(script: &str) -> Program {
        Program::start(Command::new("sh").args(["-c", script]))
    }

    pub fn start(command: &mut Command) -> Program {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Program(command.spawn().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn go_on(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub fn next_line(&mut self) -> String {
        let mut line = String::new();
        let output = self.0.stdout.as_mut().unwrap();
        let mut output = BufReader::with_capacity(1, output);
        output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
