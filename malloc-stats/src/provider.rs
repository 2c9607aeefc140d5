//! Who really implements `malloc` in this process.
//!
//! A library named in `LD_PRELOAD`, or an allocator linked into the program, may stand before the
//! C library's. glibc's `mallinfo2` then still answers, and counts an empty heap: zeros that look
//! like a reading. So the implementation is resolved before glibc is asked anything.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::OnceLock;

/// An implementation of `malloc` that can be told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Implementation {
    /// The GNU C library: the object with `malloc` also has `gnu_get_libc_version`.
    Glibc,
    /// jemalloc under its plain names: the object also has `mallctl`.
    Jemalloc,
    /// mimalloc: the object also has `mi_malloc`.
    Mimalloc,
    /// gperftools' tcmalloc: the object also has `tc_malloc`.
    Tcmalloc,
    /// musl: the object is musl's loader.
    Musl,
    /// Some other one.
    Other,
    /// `malloc` could not be looked up; so it is in a static program.
    Unresolved,
}

/// How the object with `malloc` came into the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Named in `LD_PRELOAD` or `/etc/ld.so.preload`.
    Preloaded,
    /// Part of the program itself.
    Program,
    /// A library among others.
    Library,
}

/// Who implements `malloc`, and where it lies.
///
/// Prints as `glibc 2.36`, `jemalloc (preloaded, /usr/lib/libjemalloc.so.2)` and the like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Which implementation.
    pub implementation: Implementation,
    /// How it came here.
    pub placement: Placement,
    /// The object that has `malloc`, as the loader names it.
    pub object: Option<String>,
    /// The version of the C library where it is glibc, such as `2.36` (`gnu_get_libc_version(3)`);
    /// known whoever implements `malloc`.
    pub libc_version: Option<String>,
}

impl Provider {
    /// Who implements `malloc` here. Looked up once: the loader binds `malloc` at start.
    #[must_use]
    pub fn of_malloc() -> &'static Self {
        static PROVIDER: OnceLock<Provider> = OnceLock::new();
        PROVIDER.get_or_init(Self::resolve)
    }

    fn resolve() -> Self {
        let libc_version = libc_version();
        let Some(object) = symbol(c"malloc").and_then(Object::of) else {
            return Self {
                implementation: Implementation::Unresolved,
                placement: Placement::Program,
                object: None,
                libc_version,
            };
        };
        let has = |name| {
            symbol(name)
                .and_then(Object::of)
                .is_some_and(|o| o.base == object.base)
        };
        let named = |part| file_name(&object.path).is_some_and(|name| name.starts_with(part));
        // The C library comes last: a static allocator may lie in one object with everything.
        let implementation = if has(c"mallctl") {
            Implementation::Jemalloc
        } else if has(c"mi_malloc") {
            Implementation::Mimalloc
        } else if has(c"tc_malloc") {
            Implementation::Tcmalloc
        } else if has(c"gnu_get_libc_version") {
            Implementation::Glibc
        } else if named("ld-musl") || named("libc.musl") {
            Implementation::Musl
        } else {
            Implementation::Other
        };
        Self {
            implementation,
            placement: placement(&object.path),
            object: Some(object.path),
            libc_version,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.implementation {
            Implementation::Glibc => {
                let version = self.libc_version.as_deref().unwrap_or("of unknown version");
                return write!(f, "glibc {version}");
            }
            Implementation::Unresolved => return f.write_str("an unknown malloc (static program)"),
            Implementation::Jemalloc => "jemalloc",
            Implementation::Mimalloc => "mimalloc",
            Implementation::Tcmalloc => "tcmalloc",
            Implementation::Musl => "musl",
            Implementation::Other => "an unknown malloc",
        };
        let placement = match self.placement {
            Placement::Preloaded => "preloaded",
            Placement::Program => "in the program",
            Placement::Library => "library",
        };
        let object = self.object.as_deref().unwrap_or("unknown object");
        write!(f, "{name} ({placement}, {object})")
    }
}

/// An object the loader mapped.
struct Object {
    base: usize,
    path: String,
}

impl Object {
    fn of(address: NonNull<c_void>) -> Option<Self> {
        let mut info = libc::Dl_info {
            dli_fname: std::ptr::null(),
            dli_fbase: std::ptr::null_mut(),
            dli_sname: std::ptr::null(),
            dli_saddr: std::ptr::null_mut(),
        };
        // SAFETY: dladdr(3) only compares the address with the mapped objects, and writes `info`.
        let found = unsafe { libc::dladdr(address.as_ptr(), &raw mut info) };
        if found == 0 || info.dli_fname.is_null() {
            return None;
        }
        // SAFETY: where dladdr succeeds, the name is a C string of the loader, which lives as long
        // as the object is mapped; the object with `malloc` is never unmapped.
        let path = unsafe { CStr::from_ptr(info.dli_fname) };
        Some(Self {
            base: info.dli_fbase as usize,
            path: path.to_string_lossy().into_owned(),
        })
    }
}

/// The address of a symbol that is visible to the whole process.
pub(crate) fn symbol(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: `name` is a C string, and dlsym(3) with RTLD_DEFAULT only looks it up.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}

fn libc_version() -> Option<String> {
    let address = symbol(c"gnu_get_libc_version")?;
    // SAFETY: gnu_get_libc_version(3) takes nothing and returns a static C string; a symbol of this
    // name is glibc's.
    let version = unsafe {
        let version: extern "C" fn() -> *const libc::c_char = std::mem::transmute(address.as_ptr());
        CStr::from_ptr(version())
    };
    Some(version.to_string_lossy().into_owned())
}

fn file_name(path: &str) -> Option<&str> {
    Path::new(path).file_name()?.to_str()
}

fn placement(object: &str) -> Placement {
    let named_in = |list: &str| {
        list.split([':', ' ', '\n', '\t'])
            .filter(|entry| !entry.is_empty())
            .any(|entry| entry == object || file_name(entry) == file_name(object))
    };
    let in_environment = std::env::var("LD_PRELOAD").is_ok_and(|list| named_in(&list));
    if in_environment || std::fs::read_to_string("/etc/ld.so.preload").is_ok_and(|l| named_in(&l)) {
        return Placement::Preloaded;
    }
    let program = std::fs::read_link("/proc/self/exe").ok();
    let same = |path: &Path| std::fs::canonicalize(object).is_ok_and(|object| object == path);
    if program.is_some_and(|path| same(&path)) {
        Placement::Program
    } else {
        Placement::Library
    }
}
