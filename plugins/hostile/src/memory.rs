//! Allocates memory for the host, in all versions of the contract.

use std::alloc::{self, Layout};

/// Allocates `len` bytes and returns their address. Copies the contents of `old` into them.
///
/// # Safety
/// `align` must be a power of two, and `len`, rounded up to `align`, must not exceed `isize::MAX`. If `old_len` is not
/// 0, `old` must have been allocated by this function with this length and alignment.
pub(crate) unsafe fn give(old: *mut u8, old_len: usize, align: usize, len: usize) -> *mut u8 {
    if len == 0 {
        return std::ptr::without_provenance_mut(align);
    }
    // SAFETY: the caller guarantees the requirements in the section "Safety".
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
