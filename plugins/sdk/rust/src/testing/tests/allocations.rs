//! A call allocates only its results.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use super::*;

/// The system's allocator, which counts the allocations of each thread.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller keeps the rules of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the rules of this function.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Returns the number of allocations of a call.
fn count<P: Plugin>(rows: u32, frame: &[u64]) -> usize {
    let frame = frame.to_vec();
    let instance = Instance::new();
    instance.configure::<P>("null").unwrap();
    let before = COUNT.get();
    let batch = instance.transform::<P>(rows, bytemuck::cast_slice(&frame));
    let count = COUNT.get() - before;
    batch.unwrap();
    count
}

#[test]
fn call_allocates_only_the_outputs() {
    assert_eq!(count::<sum>(2, &[0b11, bits(1.0), bits(2.0), 0, 0, 0]), 1);
    assert_eq!(count::<picky>(1, &[1, 7, 1, bits(1.0), 0, 0]), 1);
    // A failed row allocates its message and the list of failed rows.
    assert_eq!(count::<strict>(1, &[0, 0, 0, 0]), 3);
}
