//! A stand-in for NVIDIA's driver: a library of its own, with the functions that the cache and
//! candle call, over host memory. It says *simulated* in its device's name. It runs no kernels.
//!
//! It is as lazy as a driver may be: what a stream is given is done only when somebody waits for it,
//! so that whoever reads too early, or writes too early to memory that is being copied, gets other
//! bytes than wanted. It is strict: addresses that are not allocated, calls without a context and
//! handles that do not exist are violations, which are counted. And any call can be made to fail.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::{c_char, c_int, c_uint};
use std::sync::{Mutex, MutexGuard, PoisonError};

mod linked;
mod screws;

type Code = c_uint;

const INVALID_VALUE: Code = 1;
const OUT_OF_MEMORY: Code = 2;
const INVALID_DEVICE: Code = 101;
const INVALID_CONTEXT: Code = 201;
const ALREADY_REGISTERED: Code = 712;
const NOT_REGISTERED: Code = 713;

const CONTEXT: usize = 0xC0;
/// The handle that stands for the stream of whichever thread: here all have one.
const PER_THREAD: usize = 2;
/// The device's own pool, which is always there.
const DEFAULT_POOL: usize = 0;
const MIB: u64 = 1 << 20;
/// What a context takes.
const OVERHEAD: u64 = 3 * MIB;

enum Op {
    /// Host memory that is read when the copy is done.
    Copy { to: u64, from: usize, len: usize },
    /// Bytes that were taken when it was asked for.
    Write { to: u64, bytes: Vec<u8> },
    /// From one place on the device to another.
    Within { to: u64, from: u64, len: usize },
    Free { address: u64 },
    Wait(Point),
}

#[derive(Default)]
struct Stream {
    queue: VecDeque<Op>,
    given: u64,
    done: u64,
}

/// So many operations of a stream are done.
#[derive(Clone, Copy, Default)]
struct Point {
    stream: usize,
    done: u64,
}

#[derive(Default)]
struct Pool {
    used: u64,
    reserved: u64,
    threshold: u64,
}

struct Allocation {
    bytes: Vec<u8>,
    pool: usize,
    /// It is to be freed.
    freed: bool,
}

struct Driver {
    total: u64,
    elsewhere: u64,
    no_pools: bool,
    retained: i64,
    next: usize,
    streams: HashMap<usize, Stream>,
    events: HashMap<usize, Point>,
    pools: HashMap<usize, Pool>,
    allocations: BTreeMap<u64, Allocation>,
    registered: BTreeMap<usize, usize>,
    registered_most: u64,
    /// Handles of the libraries beside the driver.
    handles: HashSet<usize>,
    violations: u64,
    calls: u64,
    names: Vec<String>,
    /// The call that fails, how, and whether all that follow do too.
    fails: Option<(u64, Code, bool)>,
    refused: HashMap<String, Code>,
    lost: Option<Code>,
}

static DRIVER: Mutex<Option<Driver>> = Mutex::new(None);

thread_local! {
    static BOUND: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

struct Locked(MutexGuard<'static, Option<Driver>>);

impl std::ops::Deref for Locked {
    type Target = Driver;
    fn deref(&self) -> &Driver {
        self.0.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Driver {
        self.0.as_mut().unwrap()
    }
}

fn driver() -> Locked {
    let mut guard = DRIVER.lock().unwrap_or_else(PoisonError::into_inner);
    guard.get_or_insert_with(Driver::new);
    Locked(guard)
}

impl Driver {
    fn new() -> Driver {
        Driver {
            total: 1024 * MIB,
            elsewhere: 0,
            no_pools: false,
            retained: 0,
            next: 0x1000,
            streams: HashMap::from([0, PER_THREAD].map(|handle| (handle, Stream::default()))),
            events: HashMap::new(),
            pools: HashMap::from([(DEFAULT_POOL, Pool::default())]),
            allocations: BTreeMap::new(),
            registered: BTreeMap::new(),
            registered_most: u64::MAX,
            handles: HashSet::new(),
            violations: 0,
            calls: 0,
            names: Vec::new(),
            fails: None,
            refused: HashMap::new(),
            lost: None,
        }
    }
}

impl Driver {
    fn handle(&mut self) -> usize {
        self.next += 0x10;
        self.next
    }

    /// Counts a call. It may have to fail.
    fn enter(&mut self, name: &str, wants_context: bool) -> Result<(), Code> {
        self.calls += 1;
        self.names.push(name.to_owned());
        if let Some(code) = self.lost {
            return Err(code);
        }
        if let Some((call, code, is_lost)) = self.fails
            && self.calls == call
        {
            self.lost = is_lost.then_some(code);
            return Err(code);
        }
        if let Some(code) = self.refused.get(name) {
            return Err(*code);
        }
        if wants_context && BOUND.with_borrow(|bound| bound.last() != Some(&CONTEXT)) {
            self.violations += 1;
            return Err(INVALID_CONTEXT);
        }
        Ok(())
    }

    fn violation<T>(&mut self) -> Result<T, Code> {
        self.violations += 1;
        Err(INVALID_VALUE)
    }

    fn free(&self) -> u64 {
        let context = if self.retained > 0 { OVERHEAD } else { 0 };
        let reserved: u64 = self.pools.values().map(|pool| pool.reserved).sum();
        self.total
            .saturating_sub(context + self.elsewhere + reserved)
    }

    /// The bytes of device memory at an address, where they are one live allocation's.
    fn memory(&mut self, at: u64, len: usize) -> Option<&mut [u8]> {
        let (start, allocation) = self.allocations.range_mut(..=at).next_back()?;
        let begin = (at - start) as usize;
        allocation
            .bytes
            .get_mut(begin..begin.checked_add(len)?)
    }

    fn push(&mut self, stream: usize, op: Op) -> Result<(), Code> {
        match self.streams.get_mut(&stream) {
            Some(stream) => {
                stream.queue.push_back(op);
                stream.given += 1;
                Ok(())
            }
            None => self.violation(),
        }
    }

    fn step(&mut self, stream: usize) -> bool {
        let Some(known) = self.streams.get_mut(&stream) else {
            return false;
        };
        let Some(op) = known.queue.pop_front() else {
            return false;
        };
        known.done += 1;
        match op {
            Op::Copy { to, from, len } => {
                // SAFETY: whoever asked for the copy keeps the source until it is done; that it is
                // still registered was looked at.
                let is_there = self.is_registered(from, len);
                let bytes =
                    is_there.then(|| unsafe { std::slice::from_raw_parts(from as *const u8, len) });
                let into = self.memory(to, len);
                match (into, bytes) {
                    (Some(into), Some(bytes)) => into.copy_from_slice(bytes),
                    _ => self.violations += 1,
                }
            }
            Op::Write { to, bytes } => {
                match self.memory(to, bytes.len()) {
                    Some(into) => into.copy_from_slice(&bytes),
                    None => self.violations += 1,
                }
            }
            Op::Within { to, from, len } => {
                let bytes = self.memory(from, len).map(|bytes| bytes.to_vec());
                match (bytes, self.memory(to, len)) {
                    (Some(bytes), Some(into)) => into.copy_from_slice(&bytes),
                    _ => self.violations += 1,
                }
            }
            Op::Free { address } => match self.allocations.remove(&address) {
                Some(allocation) => {
                    let bytes = allocation.bytes.len() as u64;
                    if let Some(pool) = self.pools.get_mut(&allocation.pool) {
                        pool.used -= bytes;
                    }
                }
                None => self.violations += 1,
            },
            Op::Wait(point) => self.reach(point),
        }
        true
    }

    fn is_registered(&self, from: usize, len: usize) -> bool {
        let before = self.registered.range(..=from).next_back();
        before.is_some_and(|(start, bytes)| from + len <= start + bytes)
    }

    /// Does what a stream was given before a point.
    fn reach(&mut self, point: Point) {
        let is_before = |driver: &Driver| {
            let stream = driver.streams.get(&point.stream);
            stream.is_some_and(|stream| stream.done < point.done)
        };
        while is_before(self) && self.step(point.stream) {}
    }

    fn run(&mut self, stream: usize) {
        while self.step(stream) {}
        self.settle();
    }

    fn run_all(&mut self) {
        let streams: Vec<usize> = self.streams.keys().copied().collect();
        for stream in streams {
            self.run(stream);
        }
    }

    /// Takes memory out of a pool.
    fn take(&mut self, pool: usize, bytes: usize) -> Result<u64, Code> {
        if bytes == 0 || !self.pools.contains_key(&pool) {
            return self.violation();
        }
        let bytes_64 = (bytes as u64).checked_next_multiple_of(512).ok_or(OUT_OF_MEMORY)?;
        // What is still to be freed is not waited for.
        let kept = self.pools[&pool].reserved - self.pools[&pool].used;
        if bytes_64 > self.free().saturating_add(kept) {
            return Err(OUT_OF_MEMORY);
        }
        let found = self.pools.get_mut(&pool).unwrap();
        found.used += bytes_64;
        found.reserved = found.reserved.max(found.used.next_multiple_of(2 * MIB));
        // Addresses that host memory never has, each with room behind it.
        let last = self.allocations.iter().next_back();
        let after = last.map_or(1 << 56, |(at, known)| at + known.bytes.len() as u64);
        let address = after.next_multiple_of(512) + 4096;
        let bytes = vec![0xA5; bytes_64 as usize];
        self.allocations.insert(address, Allocation { bytes, pool, freed: false });
        Ok(address)
    }

    /// What pools do not use goes back, beyond their release threshold.
    fn settle(&mut self) {
        for pool in self.pools.values_mut() {
            if pool.reserved > pool.threshold {
                pool.reserved = pool.used.next_multiple_of(2 * MIB);
            }
        }
    }
}

fn code(result: Result<(), Code>) -> Code {
    result.err().unwrap_or(0)
}

/// Functions, and what makes their results into their library's codes.
macro_rules! calls {
    ($code:ident: $($name:ident [$context:literal] ($($argument:ident: $type:ty),*) |$driver:ident| $body:block)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> Code {
            let mut guard = driver();
            let $driver = &mut *guard;
            $code((|| -> Result<(), Code> {
                $driver.enter(stringify!($name), $context)?;
                #[allow(unused_unsafe)]
                unsafe { $body }
            })())
        }
    )*};
}

pub(crate) use calls;

unsafe fn text(into: *mut c_char, len: c_int, text: &str) {
    let bytes = text.bytes().chain([0]);
    for (at, byte) in bytes.take(len as usize).enumerate() {
        unsafe { *into.add(at) = byte as c_char };
    }
}

calls! {
    code:
    cuInit[false](flags: c_uint) |driver| {
        if flags == 0 { Ok(()) } else { driver.violation() }
    }
    cuDeviceGetCount[false](count: *mut c_int) |_driver| {
        *count = 1;
        Ok(())
    }
    cuDeviceGet[false](device: *mut c_int, ordinal: c_int) |_driver| {
        *device = 40 + ordinal;
        if ordinal == 0 { Ok(()) } else { Err(INVALID_DEVICE) }
    }
    cuDeviceGetName[false](name: *mut c_char, len: c_int, device: c_int) |driver| {
        text(name, len, "Simulated GPU\u{1b}");
        if device == 40 { Ok(()) } else { driver.violation() }
    }
    cuDeviceGetPCIBusId[false](id: *mut c_char, len: c_int, _device: c_int) |_driver| {
        text(id, len, "0000:AB:00.0");
        Ok(())
    }
    cuDeviceGetAttribute[false](value: *mut c_int, attribute: c_uint, _device: c_int) |driver| {
        *value = match attribute {
            115 => c_int::from(!driver.no_pools),
            // Its compute capability.
            75 => 9,
            76 => 0,
            _ => return driver.violation(),
        };
        Ok(())
    }
    cuDevicePrimaryCtxRetain[false](context: *mut usize, _device: c_int) |driver| {
        driver.retained += 1;
        *context = CONTEXT;
        Ok(())
    }
    cuDevicePrimaryCtxRelease_v2[false](_device: c_int) |driver| {
        driver.retained -= 1;
        Ok(())
    }
    cuCtxPushCurrent_v2[false](context: usize) |driver| {
        if driver.retained <= 0 {
            return driver.violation();
        }
        BOUND.with_borrow_mut(|bound| bound.push(context));
        Ok(())
    }
    cuCtxPopCurrent_v2[true](context: *mut usize) |_driver| {
        *context = BOUND.with_borrow_mut(|bound| bound.pop().unwrap_or(0));
        Ok(())
    }
    cuMemGetInfo_v2[true](free: *mut usize, total: *mut usize) |driver| {
        *free = driver.free() as usize;
        *total = driver.total as usize;
        Ok(())
    }
    cuStreamCreate[true](stream: *mut usize, _flags: c_uint) |driver| {
        let handle = driver.handle();
        driver.streams.insert(handle, Stream::default());
        *stream = handle;
        Ok(())
    }
    cuStreamDestroy_v2[true](stream: usize) |driver| {
        driver.run(stream);
        match driver.streams.remove(&stream) {
            Some(_) if stream > PER_THREAD => Ok(()),
            _ => driver.violation(),
        }
    }
    cuStreamSynchronize[true](stream: usize) |driver| {
        driver.run(stream);
        Ok(())
    }
    cuStreamWaitEvent[true](stream: usize, event: usize, _flags: c_uint) |driver| {
        match driver.events.get(&event).copied() {
            Some(point) => driver.push(stream, Op::Wait(point)),
            None => driver.violation(),
        }
    }
    cuEventCreate[true](event: *mut usize, _flags: c_uint) |driver| {
        let handle = driver.handle();
        driver.events.insert(handle, Point::default());
        *event = handle;
        Ok(())
    }
    cuEventDestroy_v2[true](event: usize) |driver| {
        match driver.events.remove(&event) {
            Some(_) => Ok(()),
            None => driver.violation(),
        }
    }
    cuEventRecord[true](event: usize, stream: usize) |driver| {
        let done = driver.streams.get(&stream).map(|stream| stream.given);
        match (driver.events.get_mut(&event), done) {
            (Some(point), Some(done)) => {
                *point = Point { stream, done };
                Ok(())
            }
            _ => driver.violation(),
        }
    }
    cuEventSynchronize[true](event: usize) |driver| {
        match driver.events.get(&event).copied() {
            Some(point) => {
                driver.reach(point);
                Ok(())
            }
            None => driver.violation(),
        }
    }
    cuMemPoolCreate[true](pool: *mut usize, props: *const [u32; 4]) |driver| {
        if *props != [1, 0, 1, 0] {
            return driver.violation();
        }
        let handle = driver.handle();
        driver.pools.insert(handle, Pool::default());
        *pool = handle;
        Ok(())
    }
    cuMemPoolDestroy[true](pool: usize) |driver| {
        match driver.pools.remove(&pool) {
            Some(_) if pool != DEFAULT_POOL => Ok(()),
            _ => driver.violation(),
        }
    }
    cuMemPoolSetAttribute[true](pool: usize, attribute: c_uint, value: *const u64) |driver| {
        match driver.pools.get_mut(&pool) {
            Some(pool) if attribute == 4 => {
                pool.threshold = *value;
                Ok(())
            }
            _ => driver.violation(),
        }
    }
    cuMemPoolTrimTo[true](pool: usize, keep: usize) |driver| {
        match driver.pools.get_mut(&pool) {
            Some(pool) => {
                let keep = pool.used.max(keep as u64).next_multiple_of(2 * MIB);
                pool.reserved = pool.reserved.min(keep);
                Ok(())
            }
            None => driver.violation(),
        }
    }
    cuMemPoolGetAttribute[true](pool: usize, attribute: c_uint, value: *mut u64) |driver| {
        let known = driver.pools.get(&pool).map(|pool| (pool.used, pool.reserved));
        match (known, attribute) {
            (Some((_, reserved)), 5) => *value = reserved,
            (Some((used, _)), 7) => *value = used,
            _ => return driver.violation(),
        }
        Ok(())
    }
    cuMemAllocFromPoolAsync[true](address: *mut u64, bytes: usize, pool: usize, _stream: usize) |driver| {
        *address = driver.take(pool, bytes)?;
        Ok(())
    }
    cuMemFreeAsync[true](address: u64, stream: usize) |driver| {
        match driver.allocations.get_mut(&address) {
            Some(known) if !known.freed => known.freed = true,
            _ => return driver.violation(),
        }
        driver.push(stream, Op::Free { address })
    }
    cuMemcpyHtoDAsync_v2[true](to: u64, from: usize, len: usize, stream: usize) |driver| {
        if driver.memory(to, len).is_none() {
            return driver.violation();
        }
        if driver.is_registered(from, len) {
            return driver.push(stream, Op::Copy { to, from, len });
        }
        // Memory that is not page-locked is read before the call returns.
        let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, len) }.to_vec();
        driver.push(stream, Op::Write { to, bytes })
    }
    cuMemcpyDtoHAsync_v2[true](to: *mut u8, from: u64, len: usize, stream: usize) |driver| {
        driver.run(stream);
        match driver.memory(from, len) {
            Some(bytes) => {
                unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, len) };
                Ok(())
            }
            None => driver.violation(),
        }
    }
    cuMemHostRegister_v2[true](at: usize, bytes: usize, flags: c_uint) |driver| {
        if at % 4096 != 0 || bytes % 4096 != 0 || flags != 1 {
            return driver.violation();
        }
        let all: usize = driver.registered.values().sum();
        if (all + bytes) as u64 > driver.registered_most {
            return Err(OUT_OF_MEMORY);
        }
        match driver.registered.insert(at, bytes) {
            None => Ok(()),
            Some(_) => Err(ALREADY_REGISTERED),
        }
    }
    cuMemHostUnregister[true](at: usize) |driver| {
        // What is still to be copied from there would not be.
        let is_read = driver.streams.values().flat_map(|stream| &stream.queue).any(|op| {
            matches!(op, Op::Copy { from, .. } if driver.registered.get(&at)
                .is_some_and(|bytes| (at..at + bytes).contains(from)))
        });
        if is_read {
            driver.violations += 1;
        }
        driver.registered.remove(&at).map(drop).ok_or(NOT_REGISTERED)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> Code {
    unsafe { *version = 13_000 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: Code, name: *mut *const c_char) -> Code {
    let known = match code {
        INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        46 => c"CUDA_ERROR_DEVICE_UNAVAILABLE",
        100 => c"CUDA_ERROR_NO_DEVICE",
        700 => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        999 => c"CUDA_ERROR_UNKNOWN",
        _ => return INVALID_VALUE,
    };
    unsafe { *name = known.as_ptr() };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(_code: Code, text: *mut *const c_char) -> Code {
    unsafe { *text = c"the simulated driver's own words".as_ptr() };
    0
}
