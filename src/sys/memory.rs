//! The program's allocator, in place of the C library's.
//!
//! musl's allocator asks the kernel for a page, or returns one, at nearly each allocation. It takes 9 % more of `run`
//! and `exec` and 23 % more of `state` (integration/bench/README.md). This file may go when musl's allocator keeps
//! its pages. With glibc this allocator does no harm, and the tests run it there.

use dlmalloc::Dlmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory from the crate dlmalloc, behind std's lock. The crate's own lock is a pthread_mutex, which takes five times
/// the instructions: a tenth of all that `state` executes.
pub struct Memory(Mutex<Dlmalloc>);

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An allocator that has no memory yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Dlmalloc::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Dlmalloc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: dlmalloc keeps the same contract, and one thread at a time uses it. The lock allocates nothing.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.lock().realloc(place, layout.size(), layout.align(), size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.lock().free(place, layout.size(), layout.align()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_kept_cleared_and_given_back() {
        let memory = Memory::new();
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        for (size, align) in [(1, 1), (24, 8), (100, 4096), (3 << 20, 64)] {
            let (small, grown) = (layout(size, align), layout(2 * size, align));
            // SAFETY: each place is used within its size. It is freed once, with its layout at that time.
            unsafe {
                let place = memory.alloc(small);
                assert!(!place.is_null() && place.addr() % align == 0);
                place.write_bytes(7, size);
                let place = memory.realloc(place, small, 2 * size);
                assert!(place.addr() % align == 0 && (0..size).all(|at| *place.add(at) == 7));
                place.write_bytes(7, 2 * size);
                memory.dealloc(place, grown);
                let place = memory.alloc_zeroed(grown);
                assert!((0..2 * size).all(|at| *place.add(at) == 0), "{size} {align}");
                memory.dealloc(place, grown);
            }
        }
    }
}
