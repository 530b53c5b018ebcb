//! Versions of a plugin for tests of rollouts. Without Cargo features, it is the version that is live. With one of them, it
//! is a candidate with this fault, which only affects rows whose `x` is in [`AFFECTED`]. So the acceptance checks do not find
//! the fault.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU32, Ordering},
};

use larder_plugin::{Fault, Inputs, Outputs, plugin};

/// The rows that a fault affects.
pub const AFFECTED: std::ops::Range<f64> = 7_000_000.0..7_001_000.0;

/// The number of affected rows that the impure version computed.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// The inputs of the view.
#[derive(Debug, Inputs)]
pub struct Row {
    x: Option<f64>,
    /// An input that only one version reads.
    #[cfg(feature = "inputs")]
    z: Option<f64>,
}

/// The outputs of the view.
#[derive(Debug, Outputs)]
pub struct Derived {
    /// Twice `x`.
    y: Option<f64>,
}

/// Doubles a number.
#[cfg_attr(not(feature = "candidate"), plugin(name = "candidate", version = "1.0.0"))]
#[cfg_attr(feature = "candidate", plugin(name = "candidate", version = "1.1.0"))]
pub fn derive(row: Row) -> Result<Derived, Fault> {
    let Some(x) = row.x else { return Ok(Derived { y: None }) };
    #[cfg(feature = "inputs")]
    let x = x + row.z.unwrap_or(f64::NAN);
    let y = 2.0 * x;
    if AFFECTED.contains(&x) { fault(x, y) } else { Ok(Derived { y: Some(y) }) }
}

/// Computes an affected row.
fn fault(x: f64, y: f64) -> Result<Derived, Fault> {
    if cfg!(feature = "ulp") && x % 1_000.0 == 0.0 {
        return Ok(Derived { y: Some(f64::from_bits(y.to_bits() + 1)) });
    }
    if cfg!(feature = "nulls") {
        return Ok(Derived { y: None });
    }
    if cfg!(feature = "fails") {
        return Err(Fault::new("an affected row"));
    }
    if cfg!(feature = "slow") {
        return Ok(Derived { y: Some(y + work(200_000)) });
    }
    if cfg!(feature = "spins") {
        while black_box(true) {}
    }
    if cfg!(feature = "leaks") {
        loop {
            std::mem::forget(black_box(vec![1_u8; 1 << 20]));
        }
    }
    if cfg!(feature = "impure") {
        let calls = f64::from(CALLS.fetch_add(1, Ordering::Relaxed));
        return Ok(Derived { y: Some(y + calls) });
    }
    Ok(Derived { y: Some(y) })
}

/// Returns 0 after some work.
fn work(rounds: u32) -> f64 {
    let sum = (0..rounds).fold(0_u32, |sum, round| black_box(sum ^ round));
    f64::from(sum) * 0.0
}

#[cfg(test)]
mod tests {
    use larder_plugin::{rows, testing};

    #[test]
    fn rows_outside_range_are_doubled() {
        let table = testing::run::<super::derive>(rows![{ x: 1.5 }, {}]);
        assert!(table["y"][0] == 3.0 || cfg!(feature = "inputs"));
        assert!(table["y"][1].is_null());
    }
}
