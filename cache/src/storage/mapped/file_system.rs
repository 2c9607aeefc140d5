//! Where files must not be mapped: on network file systems a fault is 30 to 50 times as slow as a
//! read, and a server that is gone is a `SIGBUS`.

use std::fs::File;
use std::path::Path;

use crate::model::escape_path;

/// Network file systems by the number that `statfs(2)` gives (linux/magic.h, and their sources).
const NETWORK: [(u64, &str); 15] = [
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x564c, "ncp"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "afs"),
    (0x7375_7245, "coda"),
    (0x00c3_6400, "ceph"),
    (0x0bd0_0bd0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    // Whatever is behind it: mostly a server (sshfs, s3fs, gcsfuse).
    (0x6573_5546, "fuse"),
];

/// Whether a file may be mapped.
///
/// # Errors
/// Why not, with the type of its file system.
pub(super) fn may_be_mapped(file: &File, path: &Path) -> Result<(), String> {
    let why = "mapped pages are slow and can be lost \
               (`--mapped-anywhere`, `Mapping::anywhere` map it all the same)";
    let stat = rustix::fs::fstatfs(file).map_err(|errno| {
        // Local ones always answer.
        format!(
            "{} is on a file system that does not tell its type ({errno}), as on a network, where \
             {why}",
            escape_path(path)
        )
    })?;
    // Its width and sign differ between architectures.
    #[allow(clippy::unnecessary_cast)]
    let kind = u64::from(stat.f_type as u32);
    match NETWORK.iter().find(|(number, _)| *number == kind) {
        None => Ok(()),
        Some((_, name)) => Err(format!(
            "{} is on a file system of type {name}, where {why}",
            escape_path(path)
        )),
    }
}
