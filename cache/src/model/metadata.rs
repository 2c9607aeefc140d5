//! What a file says of itself besides its tensors.

/// The longest value that is kept, bytes. Training logs and vocabularies are longer.
pub(super) const LONGEST_VALUE: usize = 4096;
const LONGEST_KEY: usize = 256;
const MOST_ENTRIES: usize = 1024;

/// Short texts by name, in the order of the file: `__metadata__` of safetensors, the scalar values
/// of GGUF as text. What is long, and what comes after the first 1024, is left out and counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    entries: Vec<(Box<str>, Box<str>)>,
    left_out: usize,
}

impl Metadata {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut entries = self.entries.iter();
        entries
            .find(|(known, _)| &**known == key)
            .map(|(_, value)| &**value)
    }

    /// All keys and values that were kept. Print them through [`escape`](super::escape()).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, value)| (&**key, &**value))
    }

    /// How many were left out.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Keeps an entry, if it is short.
    pub(super) fn note(&mut self, key: &str, value: &str) {
        if self.takes(key.len()) && value.len() <= LONGEST_VALUE {
            self.entries.push((key.into(), value.into()));
        } else {
            self.leave_out();
        }
    }

    /// Whether another entry is kept, with a key of so many bytes and a short value.
    pub(super) fn takes(&self, key_bytes: usize) -> bool {
        key_bytes <= LONGEST_KEY && self.entries.len() < MOST_ENTRIES
    }

    /// Counts one that is not kept.
    pub(super) fn leave_out(&mut self) {
        self.left_out += 1;
    }
}
