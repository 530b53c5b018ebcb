//! Bytes with a lease that ends when no slice of the bytes is left.

use bytes::Bytes;

use super::Lease;

struct Leased<T> {
    bytes: T,
    _lease: Lease,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Leased<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Attaches a lease to bytes. The lease ends when the last slice of the bytes is dropped.
#[must_use]
pub fn leased_bytes<T: AsRef<[u8]> + Send + 'static>(bytes: T, lease: Lease) -> Bytes {
    Bytes::from_owner(Leased { bytes, _lease: lease })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryBudget;

    #[test]
    fn last_slice_ends_the_lease() {
        let budget = MemoryBudget::new(10 << 20);
        let mut lease = budget.lease();
        lease.grow(1 << 20).unwrap();
        let bytes = leased_bytes(vec![7; 1 << 20], lease);
        let slice = bytes.slice(5..10);
        drop(bytes);
        assert_eq!((budget.used(), &*slice), (1 << 20, &[7; 5][..]));
        drop(slice);
        assert_eq!(budget.used(), 0);
    }
}
