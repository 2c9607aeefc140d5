//! Programs that the kernel marks as privileged, so that their loaders distrust the environment
//! (`AT_SECURE`, `getauxval(3)`).

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{StatVfsMountFlags, fgetxattr, fstatvfs};
use rustix::process::{getgid, getuid};

use super::obstacle::Privilege;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
/// Without it the bit before means mandatory locks, and no other group.
const GROUP_EXECUTES: u32 = 0o010;

/// What would make a program privileged if this process started it (`cap_bprm_creds_from_file`).
pub(super) fn of(file: &File) -> Option<Privilege> {
    let meta = file.metadata().ok()?;
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let ignored = fstatvfs(file).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOSUID))
        || rustix::thread::no_new_privs().unwrap_or(false);
    if ignored {
        return None;
    }
    let mode = meta.mode();
    if mode & SETUID != 0 && meta.uid() != user {
        return Some(Privilege::SetUser(meta.uid()));
    }
    let sets_group = SETGID | GROUP_EXECUTES;
    if mode & sets_group == sets_group && meta.gid() != group {
        return Some(Privilege::SetGroup(meta.gid()));
    }
    // Root has them anyway, and is not marked.
    (user != 0 && has_capabilities(file)).then_some(Privilege::Capabilities)
}

fn has_capabilities(file: &File) -> bool {
    let mut value = [0_u8; 64];
    fgetxattr(file, c"security.capability", value.as_mut_slice()).is_ok_and(|bytes| bytes > 0)
}
