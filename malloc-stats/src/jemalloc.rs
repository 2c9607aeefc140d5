//! The numbers of the jemalloc that is linked into this program (`jemalloc(3)`, *mallctl
//! namespace*).

use serde::{Deserialize, Serialize};

/// What jemalloc counts, in bytes, of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JemallocStats {
    /// `stats.allocated`: in blocks handed out, rounded up to size classes, with what thread
    /// caches hold.
    pub allocated: u64,
    /// `stats.active`: in pages that have any such block.
    pub active: u64,
    /// `stats.metadata`: for jemalloc's own records.
    pub metadata: u64,
    /// `stats.resident`: an upper bound of what is resident, since it counts pages that were never
    /// touched.
    pub resident: u64,
    /// `stats.mapped`: in active extents.
    pub mapped: u64,
    /// `stats.retained`: address space kept for later; neither resident nor mapped.
    pub retained: u64,
    /// `stats.arenas.4096.pdirty`: in unused pages that may be dirty.
    pub dirty: u64,
    /// `stats.arenas.4096.pmuzzy`: in unused pages that the kernel may take back, or has.
    pub muzzy: u64,
}

/// Advances the epoch and reads.
///
/// # Errors
///
/// The reason as a text, where the program was built without the feature `jemalloc`, or jemalloc
/// refuses (it was built without statistics).
pub fn stats() -> Result<JemallocStats, String> {
    read()
}

#[cfg(feature = "jemalloc")]
fn read() -> Result<JemallocStats, String> {
    use tikv_jemalloc_ctl::{epoch, stats};

    let refused = |error| format!("jemalloc's statistics could not be read: {error}");
    let read = || -> tikv_jemalloc_ctl::Result<JemallocStats> {
        // Statistics are a copy that only this refreshes.
        epoch::advance()?;
        let page = size(b"arenas.page\0")?;
        Ok(JemallocStats {
            allocated: stats::allocated::read()? as u64,
            active: stats::active::read()? as u64,
            metadata: stats::metadata::read()? as u64,
            resident: stats::resident::read()? as u64,
            mapped: stats::mapped::read()? as u64,
            retained: stats::retained::read()? as u64,
            // 4096 is MALLCTL_ARENAS_ALL: the sum over all arenas.
            dirty: size(b"stats.arenas.4096.pdirty\0")?.saturating_mul(page),
            muzzy: size(b"stats.arenas.4096.pmuzzy\0")?.saturating_mul(page),
        })
    };
    read().map_err(refused)
}

#[cfg(feature = "jemalloc")]
fn size(name: &'static [u8]) -> tikv_jemalloc_ctl::Result<u64> {
    // SAFETY: every name passed here is NUL-terminated, and of type size_t in jemalloc(3).
    unsafe { tikv_jemalloc_ctl::raw::read::<usize>(name) }.map(|value| value as u64)
}

#[cfg(not(feature = "jemalloc"))]
fn read() -> Result<JemallocStats, String> {
    Err("malloc-stats was built without the feature `jemalloc`".to_owned())
}
