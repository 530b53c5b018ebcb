"""Computes eight doubles from eight doubles, as `plugins/bench/floats` does in Rust."""

import math

from larder_plugin import Float64, plugin

NAMES = ["a", "b", "c", "d", "e", "f", "g", "h"]
COMPUTED = ["sum", "difference", "product", "ratio", "larger", "root", "scaled", "mean"]


@plugin(
    name="bench_floats",
    version="1.0.0",
    inputs={name: Float64("A number.") for name in NAMES},
    outputs={name: Float64("A number computed from the inputs.") for name in COMPUTED},
)
def compute(a, b, c, d, e, f, g, h):
    """Returns sums, ratios and similar functions of eight numbers."""
    return (
        None if a is None or b is None else a + b,
        None if c is None or d is None else c - d,
        None if e is None or f is None else e * f,
        None if g is None or h is None or h == 0.0 else g / h,
        None if a is None or h is None else (a if a > h else h),
        None if b is None or b < 0.0 else math.sqrt(b),
        None if c is None else c * 0.01 + 1.0,
        None if d is None or e is None else (d + e) / 2.0,
    )
