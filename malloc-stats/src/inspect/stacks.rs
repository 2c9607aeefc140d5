//! Where the stacks of threads are.

use super::target::Target;

/// At most as many threads are asked.
const MOST_THREADS: usize = 4096;

impl Target {
    /// The stack pointers of its threads that wait for something, in no order; those of threads
    /// that run just now are not known. Of the first 4096 threads. Empty where its memory may not
    /// be read.
    #[must_use]
    pub fn stack_pointers(&self) -> Vec<u64> {
        let Ok(threads) = self.numbers_in("task", MOST_THREADS) else {
            return Vec::new();
        };
        threads
            .into_iter()
            .filter_map(|thread| {
                let text = self.text(&format!("task/{thread}/syscall")).ok()?;
                parse_stack_pointer(&text)
            })
            .collect()
    }
}

/// The stack pointer in the text of `/proc/PID/syscall` (`proc_pid_syscall(5)`): the last but one
/// of its fields. A thread that waits outside of a system call has only three, which the crate
/// `procfs` does not know.
#[must_use]
pub fn parse_stack_pointer(text: &str) -> Option<u64> {
    let pointer = text.split_ascii_whitespace().rev().nth(1)?;
    let pointer = u64::from_str_radix(pointer.strip_prefix("0x")?, 16).ok()?;
    (pointer != 0).then_some(pointer)
}
