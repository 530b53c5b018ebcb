"""The ratio of two numbers."""

from larder_plugin import Fault, Float64, plugin


@plugin(
    name="{{name}}",
    version="0.1.0",
    inputs={
        "numerator": Float64("The numerator."),
        "denominator": Float64("The denominator, at least 0."),
    },
    outputs={
        "ratio": Float64("The ratio; null if an input is null or the denominator is 0."),
    },
)
def derive(numerator, denominator):
    # A missing input is None; return None for a missing output.
    if numerator is None or denominator is None or denominator == 0.0:
        return None
    # An exception fails only this row: its outputs are null, and the message is reported. Other rows are served.
    if denominator < 0.0:
        raise Fault(f"the denominator {denominator} is below 0")
    return numerator / denominator
