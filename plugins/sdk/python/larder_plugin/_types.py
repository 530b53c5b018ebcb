"""The types of inputs and outputs, by the names that feature definitions use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Type:
    """The type of a column. Called with a doc, it declares an input or an output of that type."""

    name: str
    """As feature definitions write it: ``Float64``, ``Array(Float64)``."""
    scalar: str
    """Of each value, or of each item: the contract's word, such as ``float64``."""
    is_list: bool = False
    """Whether each value is a list."""

    def __call__(self, doc: str, *, required: bool | None = None, nullable: bool | None = None) -> Field:
        """Declares an input or an output.

        ``doc`` is one line for people who browse features. An input with ``required=True`` is never ``None`` in the
        function: rows without it are not computed, and their outputs are null. An output with ``nullable=False`` is
        never ``None``.
        """
        if not isinstance(doc, str):
            raise TypeError(f'{self.name} takes a line that says what it is, as in {self.name}("..."); got {doc!r}')
        return Field(self, " ".join(doc.split()), required, nullable)

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Field:
    """An input or an output, as it was declared."""

    type: Type
    doc: str
    required: bool | None = None
    """Of an input; ``None`` where it was not said, which means no."""
    nullable: bool | None = None
    """Of an output; ``None`` where it was not said, which means yes."""


Bool = Type("Bool", "bool")
"""``True`` or ``False``."""
Int32 = Type("Int32", "int32")
"""An ``int`` of 32 bits."""
Int64 = Type("Int64", "int64")
"""An ``int`` of 64 bits."""
Float32 = Type("Float32", "float32")
"""A ``float``; what the function returns is rounded to 32 bits."""
Float64 = Type("Float64", "float64")
"""A ``float``. NaN is a value, ``None`` is none."""
String = Type("String", "utf8")
"""A ``str``."""
Bytes = Type("Bytes", "binary")
"""``bytes``."""
UnixTimestamp = Type("UnixTimestamp", "timestamp")
"""An instant: an ``int``, microseconds since 1970 UTC."""


def Array(item: Type) -> Type:  # noqa: N802 - named as in feature definitions
    """The type of lists of ``item``. A list may be ``None``, its items may not."""
    if not isinstance(item, Type) or item.is_list:
        raise TypeError(f"Array takes the type of its items, as in Array(Float32); got {item!r}")
    return Type(f"Array({item.name})", item.scalar, is_list=True)
