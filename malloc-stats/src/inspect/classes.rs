//! The memory of a process by what it is.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::files::is_model_name;
use super::sharing::{Overlay, Part};
use super::smaps::SmapsEntry;
use crate::mappings::{Backing, Mapping};
use crate::metric::{Grade, Metric};

/// What a stretch of memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassKind {
    /// Arenas and mmapped chunks of a malloc that was walked, or the mappings of one that was not.
    Malloc,
    /// CPython's own arenas for small objects (pymalloc), outside malloc.
    PythonArenas,
    /// Stacks of threads, the first one's among them.
    Stacks,
    /// Private anonymous memory of nobody known: CUDA, foreign maps, regions.
    Anonymous,
    /// Programs and libraries: their code and data.
    Objects,
    /// Model-like files that are mapped.
    ModelFiles,
    /// Other mapped files.
    Files,
    /// Shared memory: tmpfs, memfd, System V, shared anonymous maps.
    Shared,
    /// Mapped by devices, such as GPUs; resident is not known from the outside.
    Devices,
    /// The kernel's (`[vdso]` and the like).
    Kernel,
    /// Address space that nobody may touch and that holds nothing: guards, the unused ends of
    /// arenas, what a GPU's driver keeps free.
    Reserved,
}

/// The memory of one sort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Class {
    /// Which.
    pub kind: ClassKind,
    /// How many mappings; one of which it has a part counts too.
    pub mappings: u64,
    /// Their address space, in bytes.
    pub size: u64,
    /// What is resident of it. Without huge pages of hugetlbfs, as everywhere in the kernel.
    pub rss: Metric,
    /// Of that, the anonymous part: never written anywhere, so it cannot be dropped.
    pub anonymous: Metric,
    /// In swap.
    pub swap: Metric,
    /// Huge pages of hugetlbfs, on top of `rss`; unavailable where there are none.
    #[serde(default, skip_serializing_if = "Metric::is_unavailable")]
    pub hugetlb: Metric,
}

/// A stretch of private anonymous memory whose owner is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRange {
    /// Its addresses; whole pages. May cover several mappings, or a part of one.
    pub range: Range<u64>,
    /// Whose it is.
    pub kind: ClassKind,
    /// What is resident of it, in bytes; counts where it covers a part of a mapping.
    pub resident: u64,
    /// What is in swap of it, in bytes.
    pub swapped: u64,
}

/// What is known of whose the anonymous memory of a process is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owned {
    /// Stretches with a known owner. Of two that overlap, the one that begins first has what they
    /// share.
    pub ranges: Vec<OwnedRange>,
    /// Where the stacks of threads are just now
    /// ([`Target::stack_pointers`](super::Target::stack_pointers)).
    pub stack_pointers: Vec<u64>,
    /// How large the arenas of CPython are, where it runs and they could not be looked for: then
    /// mappings of a multiple of that size are taken for them.
    pub python_arena: Option<u64>,
}

/// Sorts the memory of a process: the classes there are, in order of their kind, and what is
/// unattributed, which is the resident anonymous memory of [`ClassKind::Anonymous`], the class of
/// what has no other.
///
/// Numbers are exact where whole mappings belong to one class. Where a mapping is shared out, or a
/// stack is recognised by its looks, those of every class concerned are estimated.
#[must_use]
pub fn classify(entries: &[SmapsEntry], owned: &Owned) -> (Vec<Class>, Metric) {
    let mut sums = Sums::default();
    let objects = objects(entries);
    let mut pointers = owned.stack_pointers.clone();
    pointers.sort_unstable();
    let mut overlay = Overlay::new(entries, &owned.ranges);
    for (index, entry) in entries.iter().enumerate() {
        let whole = Part::whole(entry);
        if !entry.is_private_anonymous() {
            sums.add(kind_of_file(entry, &objects), whole, Grade::Exact);
            continue;
        }
        let mut rest = whole;
        let mut parts = overlay.parts(entry).into_iter().peekable();
        while let Some((kind, part, grade)) = parts.next() {
            let mut part = rest.take(part);
            if parts.peek().is_none() && rest.size == 0 {
                // Owners that have all of it have all that is in it, whatever they knew of that.
                part = part.with(rest.take(whole));
            }
            sums.add(kind, part, grade);
        }
        if rest.size == 0 {
            continue;
        }
        let before = index.checked_sub(1).and_then(|before| entries.get(before));
        let kind = kind_of_anonymous(entry, before, &pointers, owned.python_arena);
        // Only what was named by its looks, or is what remains of a mapping, is a guess.
        let plain = matches!(kind, ClassKind::Anonymous | ClassKind::Reserved);
        let grade = if plain && rest.size == whole.size {
            Grade::Exact
        } else {
            Grade::Estimated
        };
        sums.add(kind, rest, grade);
    }
    sums.finish(entries.is_empty())
}

/// Device and inode of the files of which something can be executed.
fn objects(entries: &[SmapsEntry]) -> HashSet<((u32, u32), u64)> {
    entries
        .iter()
        .map(|entry| &entry.mapping)
        .filter(|mapping| mapping.executable && mapping.path().is_some())
        .map(|mapping| (mapping.device, mapping.inode))
        .collect()
}

fn kind_of_file(entry: &SmapsEntry, objects: &HashSet<((u32, u32), u64)>) -> ClassKind {
    let mapping = &entry.mapping;
    match &mapping.backing {
        Backing::Kernel(_) => ClassKind::Kernel,
        Backing::Stack => ClassKind::Stacks,
        // Shared memory without a file has an inode all the same, so this is none.
        Backing::Anonymous(_) | Backing::Brk => ClassKind::Anonymous,
        Backing::File { path, .. } => kind_of_path(path)
            .or_else(|| entry.of_device.then_some(ClassKind::Devices))
            .unwrap_or_else(|| {
                if objects.contains(&(mapping.device, mapping.inode)) || is_library(path) {
                    ClassKind::Objects
                } else if is_model_name(path) {
                    ClassKind::ModelFiles
                } else {
                    ClassKind::Files
                }
            }),
    }
}

/// What a path alone tells, as the kernel writes it.
fn kind_of_path(path: &str) -> Option<ClassKind> {
    const DEVICES: [&str; 11] = [
        "/dev/nvidia",
        "/dev/dri/",
        "/dev/kfd",
        "/dev/dxg",
        "/dev/accel",
        "/dev/habanalabs",
        "/dev/neuron",
        "/dev/davinci",
        "/dev/infiniband/",
        "/drm mm object",
        "/dmabuf:",
    ];
    const SHARED: [&str; 6] = [
        "/memfd:",
        "/dev/shm/",
        "/dev/zero",
        "/SYSV",
        "/anon_hugepage",
        "[anon_shmem:",
    ];
    let begins = |list: &[&str]| list.iter().any(|beginning| path.starts_with(beginning));
    if begins(&DEVICES) {
        Some(ClassKind::Devices)
    } else if begins(&SHARED) {
        Some(ClassKind::Shared)
    } else {
        None
    }
}

fn is_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".so") || name.contains(".so.")
}

/// Below a stack lies a guard, one page of glibc's, at most this much of others'.
const LARGEST_GUARD: u64 = 64 << 10;

fn kind_of_anonymous(
    entry: &SmapsEntry,
    before: Option<&SmapsEntry>,
    pointers: &[u64],
    python_arena: Option<u64>,
) -> ClassKind {
    let mapping = &entry.mapping;
    let accessible = mapping.readable || mapping.writable || mapping.executable;
    if !accessible && entry.rss == 0 && entry.swap == 0 {
        return ClassKind::Reserved;
    }
    if let Backing::Anonymous(name) = &mapping.backing {
        // What glibc (glibc.mem.decorate_maps), bionic and CPython call them.
        if name.contains("pthread stack") || name.contains("stack_and_tls") {
            return ClassKind::Stacks;
        }
        if name.contains("pymalloc") {
            return ClassKind::PythonArenas;
        }
    }
    let next = pointers.partition_point(|pointer| *pointer < mapping.range.start);
    let holds_pointer = pointers
        .get(next)
        .is_some_and(|pointer| mapping.range.contains(pointer));
    let readable = mapping.readable && mapping.writable;
    if entry.is_stack || readable && (holds_pointer || is_above_guard(mapping, before)) {
        return ClassKind::Stacks;
    }
    if readable && python_arena.is_some_and(|size| mapping.len().is_multiple_of(size)) {
        return ClassKind::PythonArenas;
    }
    ClassKind::Anonymous
}

fn is_above_guard(mapping: &Mapping, before: Option<&SmapsEntry>) -> bool {
    before.map(|entry| &entry.mapping).is_some_and(|guard| {
        guard.range.end == mapping.range.start
            && matches!(guard.backing, Backing::Anonymous(_))
            && !(guard.readable || guard.writable || guard.executable)
            && guard.len() <= LARGEST_GUARD
    })
}

#[derive(Default)]
struct Sums(BTreeMap<ClassKind, (u64, Part, Grade)>);

impl Sums {
    fn add(&mut self, kind: ClassKind, part: Part, grade: Grade) {
        let (mappings, sum, worst) =
            self.0
                .entry(kind)
                .or_insert((0, Part::default(), Grade::Exact));
        *mappings += 1;
        *sum = sum.with(part);
        *worst = (*worst).max(grade);
    }

    fn finish(self, nothing_read: bool) -> (Vec<Class>, Metric) {
        let classes: Vec<Class> = self
            .0
            .into_iter()
            .map(|(kind, (mappings, sum, grade))| {
                let uncounted = kind == ClassKind::Devices && sum.of_device;
                let graded = |bytes| Metric::graded(bytes, grade);
                Class {
                    kind,
                    mappings,
                    size: sum.size,
                    rss: if uncounted {
                        Metric::Unavailable
                    } else {
                        graded(sum.rss)
                    },
                    anonymous: graded(sum.anonymous),
                    swap: graded(sum.swap),
                    hugetlb: match sum.hugetlb {
                        0 => Metric::Unavailable,
                        bytes => graded(bytes),
                    },
                }
            })
            .collect();
        let unattributed = match classes.iter().find(|c| c.kind == ClassKind::Anonymous) {
            _ if nothing_read => Metric::Unavailable,
            Some(class) => class.anonymous,
            None => Metric::Exact(0),
        };
        (classes, unattributed)
    }
}
