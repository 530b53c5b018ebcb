"""The types of inputs and outputs, with the names that feature definitions use."""

from __future__ import annotations

from dataclasses import dataclass

from ._errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Type:
    """The type of a column. Calling it with a description declares an input or an output of the type."""

    name: str
    """The name in feature definitions, such as ``Float64`` or ``Array(Float64)``."""
    scalar: str
    """The contract's name of the type of the values, or of the lists' items, such as ``float64``."""
    is_list: bool = False
    """Whether each value is a list."""
    nullable_items: bool = False
    """Whether items of the lists may be ``None``."""

    def __call__(self, doc: str | None = None, *, required: bool | None = None, nullable: bool | None = None) -> Field:
        """Declares an input or an output.

        ``doc`` is a one-line description for users. An input with ``required=True`` is never ``None`` in the function:
        rows that lack it are not computed, and their outputs are null. An output with ``nullable=False`` must not be
        ``None`` in any row that is computed.
        """
        if not isinstance(doc, str):
            raise DeclarationError(f'{self.name} takes a one-line description, as in {self.name}("..."); got {doc!r}')
        return Field(self, " ".join(doc.split()), required, nullable)

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Field:
    """A declared input or output."""

    type: Type
    doc: str
    required: bool | None = None
    """For an input: whether rows that lack it are skipped. ``None`` means that it was not set; they are not skipped."""
    nullable: bool | None = None
    """For an output: whether it may be ``None``. ``None`` means that this was not set, and that it may."""


Bool = Type("Bool", "bool")
"""``True`` or ``False``."""
Int32 = Type("Int32", "int32")
"""An ``int`` of 32 bits."""
Int64 = Type("Int64", "int64")
"""An ``int`` of 64 bits."""
Float32 = Type("Float32", "float32")
"""A ``float``. Results are rounded to 32 bits."""
Float64 = Type("Float64", "float64")
"""A ``float``. NaN is a value; a missing value is ``None``."""
String = Type("String", "utf8")
"""A ``str``."""
Bytes = Type("Bytes", "binary")
"""``bytes``."""
UnixTimestamp = Type("UnixTimestamp", "timestamp")
"""A time, as an ``int``: microseconds since 1970 UTC."""


def Array(item: Type, *, nullable_items: bool = False) -> Type:  # noqa: N802 - named as in feature definitions
    """Returns the type of lists of ``item``. A list may be ``None``. With ``nullable_items=True``, its items may, too.

    The function gets a list of numbers, bools or timestamps as a ``memoryview``, which has a length, indexes and
    slices, can be iterated, and is converted to a list with ``tolist()``. It gets any other list, and each list whose
    items may be ``None``, as a ``list``. It returns a ``list``, ``tuple``, ``array`` or ``memoryview``.
    """
    if not isinstance(item, Type) or item.is_list:
        raise DeclarationError(f"Array takes the type of its items, as in Array(Float32); got {item!r}")
    options = ", nullable_items=True" if nullable_items else ""
    return Type(f"Array({item.name}{options})", item.scalar, is_list=True, nullable_items=bool(nullable_items))
