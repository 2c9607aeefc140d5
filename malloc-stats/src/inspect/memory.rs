//! The memory of a live process: what is resident by its pagemap, contents by
//! `process_vm_readv(2)`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::Target;
use crate::heap::{AddressSpace, Run};
use crate::mappings::Mapping;
use crate::pagemap::Pagemap;

/// Parts that one call of the kernel reads, at most (`IOV_MAX`).
const MOST_PARTS: usize = 1024;

/// A live process, as a heap walk sees it. What is mapped is as it was when this was made;
/// what is resident, and contents, are as they are when they are asked for.
#[derive(Debug)]
pub struct ProcessMemory {
    pid: libc::pid_t,
    pagemap: Pagemap,
    /// `/proc/PID/mem`, twice as slow: for where a seccomp filter, as of containers, forbids
    /// `process_vm_readv`.
    memory: Option<File>,
    mappings: Vec<Mapping>,
}

impl ProcessMemory {
    /// Opens the memory of a process for reading.
    ///
    /// # Errors
    ///
    /// What the kernel says; `EACCES` or `EPERM` without the permission to trace it.
    pub fn open(target: &Target) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(target.pid())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Self {
            pid,
            pagemap: Pagemap::new(target.file("pagemap")?),
            memory: target
                .memory()
                .ok()
                .and_then(|memory| memory.try_clone().ok()),
            mappings: target.mappings()?,
        })
    }
}

impl AddressSpace for ProcessMemory {
    fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    fn page_size(&self) -> u64 {
        self.pagemap.page()
    }

    fn residency(&self, range: Range<u64>, runs: &mut Vec<Run>) -> io::Result<()> {
        self.pagemap.states(&range, runs)
    }

    fn next_present(&self, range: Range<u64>) -> io::Result<Option<u64>> {
        self.pagemap.first(&range)
    }

    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()> {
        let length = into.len();
        let local = [libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: length,
        }];
        let remote = [part(address, length)?];
        match (self.transfer(&local, &remote, length), &self.memory) {
            (Err(error), Some(memory)) if is_forbidden(&error) => {
                memory.read_exact_at(into, address)
            }
            (done, _) => done,
        }
    }

    fn read_each(&self, addresses: &[u64], each: usize, into: &mut [u8]) -> io::Result<()> {
        for (addresses, into) in addresses
            .chunks(MOST_PARTS)
            .zip(into.chunks_mut(MOST_PARTS * each))
        {
            let remote = addresses
                .iter()
                .map(|address| part(*address, each))
                .collect::<io::Result<Vec<_>>>()?;
            let local = [libc::iovec {
                iov_base: into.as_mut_ptr().cast(),
                iov_len: into.len(),
            }];
            match self.transfer(&local, &remote, into.len()) {
                Err(error) if is_forbidden(&error) => {
                    for (address, part) in addresses.iter().zip(into.chunks_mut(each)) {
                        self.read(*address, part)?;
                    }
                }
                done => done?,
            }
        }
        Ok(())
    }
}

impl ProcessMemory {
    /// One `process_vm_readv`. `local` must describe memory that is borrowed for writing.
    fn transfer(
        &self,
        local: &[libc::iovec],
        remote: &[libc::iovec],
        length: usize,
    ) -> io::Result<()> {
        // SAFETY: each local part is a slice that the caller holds mutably, so the kernel writes
        // only there, and no more than its length; remote parts are addresses of another process,
        // which the kernel checks. At most MOST_PARTS of either.
        let read = unsafe {
            libc::process_vm_readv(
                self.pid,
                local.as_ptr(),
                local.len() as libc::c_ulong,
                remote.as_ptr(),
                remote.len() as libc::c_ulong,
                0,
            )
        };
        match usize::try_from(read) {
            Ok(read) if read == length => Ok(()),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
}

fn part(address: u64, length: usize) -> io::Result<libc::iovec> {
    let address = usize::try_from(address).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: length,
    })
}
