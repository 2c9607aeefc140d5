//! Where the memory cgroup of a process lies: its memberships, and the mounts they are seen under.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::below;
use crate::process::for_each_line;

/// The version of a cgroup hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupVersion {
    /// A hierarchy of its own for the memory controller.
    V1,
    /// The unified hierarchy.
    V2,
}

impl CgroupVersion {
    pub(crate) const fn current_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.usage_in_bytes",
            Self::V2 => "memory.current",
        }
    }
}

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// V2, or V1 where the line names the memory controller.
    pub version: CgroupVersion,
    /// The path from the root of the reader's cgroup namespace; begins with `/..` for a cgroup
    /// outside of it.
    pub path: String,
}

/// The memberships that can control memory, out of the text of `/proc/PID/cgroup`.
#[must_use]
pub fn parse_memberships(text: &str) -> Vec<Membership> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (hierarchy, controllers) = (fields.next()?, fields.next()?);
            let path = fields.next().filter(|path| path.starts_with('/'))?;
            let version = if hierarchy == "0" && controllers.is_empty() {
                CgroupVersion::V2
            } else if controllers
                .split(',')
                .any(|controller| controller == "memory")
            {
                CgroupVersion::V1
            } else {
                return None;
            };
            Some(Membership {
                version,
                // Shown when the cgroup was removed under a process that is still in it.
                path: path.strip_suffix(" (deleted)").unwrap_or(path).to_owned(),
            })
        })
        .collect()
}

/// Where a hierarchy that can control memory is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMount {
    /// V2, or V1 with the memory controller.
    pub version: CgroupVersion,
    /// The cgroup that is mounted, as a path from the root of the reader's cgroup namespace:
    /// `/docker/abc` for a bind mount, `/../..` for a cgroup above that root.
    pub root: String,
    /// Where.
    pub mount_point: PathBuf,
}

/// The mount of a line of `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`); `None` for other file
/// systems and malformed lines.
#[must_use]
pub fn parse_mount(line: &str) -> Option<CgroupMount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, mount_point) = (mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let kind = file_system.next()?;
    let options = file_system.nth(1).unwrap_or("");
    let version = match kind {
        "cgroup2" => CgroupVersion::V2,
        "cgroup" if options.split(',').any(|option| option == "memory") => CgroupVersion::V1,
        _ => return None,
    };
    Some(CgroupMount {
        version,
        root: unescape(root),
        mount_point: PathBuf::from(unescape(mount_point)),
    })
}

/// Undoes the octal escapes of mountinfo: `\040` is a space.
fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        text.push_str(before);
        match escape
            .get(1..4)
            .and_then(|octal| u8::from_str_radix(octal, 8).ok())
        {
            Some(byte) if byte.is_ascii() => {
                text.push(char::from(byte));
                rest = escape.get(4..).unwrap_or("");
            }
            _ => {
                text.push('\\');
                rest = escape.get(1..).unwrap_or("");
            }
        }
    }
    text.push_str(rest);
    text
}

/// Where the memory cgroup of a process lies in the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The version of its hierarchy.
    pub version: CgroupVersion,
    /// Where the hierarchy is mounted; the topmost cgroup that can be seen.
    pub mount_point: PathBuf,
    /// The names from there down to the cgroup of the process.
    pub names: Vec<String>,
    /// What could not be found out.
    pub note: Option<String>,
}

impl Location {
    /// The directory and path of the cgroup and of each ancestor, its own first.
    pub fn directories(&self) -> impl Iterator<Item = (PathBuf, String)> {
        (0..=self.names.len()).rev().map(|depth| {
            let names = self.names.get(..depth).unwrap_or_default();
            let mut directory = self.mount_point.clone();
            directory.extend(names);
            (directory, format!("/{}", names.join("/")))
        })
    }
}

impl Location {
    /// The file with the current use of the cgroup, or of its nearest ancestor that has one: the
    /// memory of a cgroup whose controller is off is charged there.
    pub(crate) fn open_current(&self) -> Option<File> {
        let name = self.version.current_file();
        self.directories()
            .find_map(|(directory, _)| File::open(directory.join(name)).ok())
    }
}

/// Finds the memory cgroup among the memberships and mounts of a process.
///
/// Version 1 goes first: where its memory controller is mounted (also on a hybrid system), version
/// 2 has none. A path that leads out of every mount has no ancestors that can be seen, so it is
/// not found; a mount of an ancestor by an unknown number of names is taken for that ancestor
/// alone, with a note.
#[must_use]
pub fn locate(memberships: &[Membership], mounts: &[CgroupMount]) -> Option<Location> {
    let mut partial = None;
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        for membership in memberships.iter().filter(|m| m.version == version) {
            for mount in mounts.iter().filter(|m| m.version == version) {
                let at = |names, note| Location {
                    version,
                    mount_point: mount.mount_point.clone(),
                    names,
                    note,
                };
                match descent(&mount.root, &membership.path) {
                    Descent::Names(names) => return Some(at(names, None)),
                    Descent::NotVisible => {
                        let note = format!(
                            "cgroup {} lies somewhere below {}: only the limits there are known",
                            membership.path,
                            mount.mount_point.display()
                        );
                        partial = partial.or_else(|| Some(at(Vec::new(), Some(note))));
                    }
                    Descent::Elsewhere => {}
                }
            }
        }
    }
    partial
}

/// The way from the root of a mount down to a cgroup.
enum Descent {
    Names(Vec<String>),
    /// Below it, by names that cannot be known from here.
    NotVisible,
    Elsewhere,
}

fn descent(root: &str, path: &str) -> Descent {
    let ((root_ups, root_names), (ups, names)) = (split_ups(root), split_ups(path));
    if root_ups == ups {
        return match names.strip_prefix(root_names.as_slice()) {
            Some(names) => Descent::Names(names.iter().map(|name| (*name).to_owned()).collect()),
            None => Descent::Elsewhere,
        };
    }
    if root_ups > ups && root_names.is_empty() {
        Descent::NotVisible
    } else {
        Descent::Elsewhere
    }
}

/// `/../../a/b` as 2 and `[a, b]`.
fn split_ups(path: &str) -> (usize, Vec<&str>) {
    let mut ups = 0;
    let mut names = Vec::new();
    for name in path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
    {
        if name != ".." {
            names.push(name);
        } else if names.pop().is_none() {
            ups += 1;
        }
    }
    (ups, names)
}

/// Reads where the memory cgroup of `proc/PROCESS` lies.
pub(crate) fn find(root: &Path, process: &str) -> Result<Location, String> {
    let file = root.join("proc").join(process).join("cgroup");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let memberships = parse_memberships(&text);
    if memberships.is_empty() {
        return Err(format!(
            "{}: no cgroup that could control memory",
            file.display()
        ));
    }
    // A cgroup is seen where *this* process has it mounted, whoever is in it.
    let file = root.join("proc/self/mountinfo");
    let mut mounts = Vec::new();
    for_each_line(&file, |line| mounts.extend(parse_mount(line)))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let mut location = locate(&memberships, &mounts).ok_or_else(|| {
        let paths: Vec<&str> = memberships.iter().map(|m| m.path.as_str()).collect();
        format!("cgroup {} is in no mounted hierarchy", paths.join(", "))
    })?;
    location.mount_point = below(root, &location.mount_point);
    // A container may show the host's path over a mount of its own cgroup.
    let mut hidden = 0;
    while !location.names.is_empty() && !location.directories().next().is_some_and(|d| d.0.is_dir())
    {
        location.names.pop();
        hidden += 1;
    }
    if hidden > 0 {
        location.note = Some(format!(
            "the {hidden} lowest cgroups of the process cannot be seen below {}",
            location.mount_point.display()
        ));
    }
    Ok(location)
}
