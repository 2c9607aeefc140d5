//! A process with a heap of a million pages, most of them never touched.

use std::io::Write;
use std::process::{Child, Command, Stdio};

const VARIABLE: &str = "PLIMSOLL_SCREEN_TARGET";

/// Pages of its heap: with more of them a picture of it has larger pieces.
pub const PAGES: usize = 1_000_000;
const BLOCK: usize = 64 << 10;

pub fn is_target() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Allocates, frees every third block, and waits to be ended.
pub fn target() {
    let count = PAGES * 4096 / (BLOCK + 16);
    // SAFETY: the blocks are malloc's, and each is freed once.
    unsafe {
        let blocks: Vec<_> = (0..count).map(|_| libc::malloc(BLOCK)).collect();
        for block in blocks.iter().step_by(3) {
            libc::free(*block);
        }
    }
    println!("ready");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
}

pub struct Target(Child);

impl Target {
    pub fn start() -> Target {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(VARIABLE, "1")
            .env("MALLOC_MMAP_THRESHOLD_", "33554432")
            .env("MALLOC_TOP_PAD_", "67108864")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        assert_eq!(line, "ready\n");
        Target(child)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
