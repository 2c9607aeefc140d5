use std::path::PathBuf;

/// What can go wrong here. Captures themselves never fail: a part that cannot be read is
/// [`Unavailable`](crate::Metric::Unavailable), with the reason in the notes beside it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that every capture needs could not be opened.
    #[error("cannot open {}: {source}; is /proc mounted, and are file descriptors left (ulimit -n)?", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },

    /// A text that is no size in bytes.
    #[error(
        "{input:?} is no size: {reason}; write a number of bytes, or a number with B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024), such as 1200MiB"
    )]
    Size {
        /// The text as it came.
        input: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}
