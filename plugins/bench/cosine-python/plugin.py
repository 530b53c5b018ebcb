"""Computes the cosine of two embeddings. `make bench-plugin` measures it."""

from math import sqrt, sumprod

from larder_plugin import Array, Float64, plugin


@plugin(
    name="bench_cosine",
    version="1.0.0",
    inputs={"left": Array(Float64)("An embedding."), "right": Array(Float64)("An embedding of the same length.")},
    outputs={"cosine": Float64("The cosine of the angle between the embeddings.")},
)
def cosine(left, right):
    """Returns the cosine of the angle between two embeddings."""
    if left is None or right is None or len(left) != len(right):
        return None
    left, right = left.tolist(), right.tolist()
    lengths = sqrt(sumprod(left, left) * sumprod(right, right))
    return None if lengths == 0.0 else sumprod(left, right) / lengths
