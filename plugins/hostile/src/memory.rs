//! What the host gets when it asks for memory, in both versions of the contract.

use std::alloc::{self, Layout};

/// Makes room for `len` bytes, with what lies in `old` so far.
///
/// # Safety
/// `align` is a power of two; `len` is below the memory's size; old memory is what this function gave with the same
/// alignment.
pub(crate) unsafe fn give(old: *mut u8, old_len: usize, align: usize, len: usize) -> *mut u8 {
    if len == 0 {
        return std::ptr::without_provenance_mut(align);
    }
    // SAFETY: the caller's.
    let new = unsafe {
        if old_len == 0 {
            alloc::alloc(Layout::from_size_align_unchecked(len, align))
        } else {
            alloc::realloc(old, Layout::from_size_align_unchecked(old_len, align), len)
        }
    };
    if new.is_null() {
        alloc::handle_alloc_error(Layout::new::<u64>());
    }
    new
}
