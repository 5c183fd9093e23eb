"""Arrow arrays of any kind to text."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc


def as_strings(array: Any) -> pa.StringArray:
    """Return an Arrow array as text without white space around it, ``""`` where null.

    Whole numbers have no decimals, also where nulls made them floats; lists are joined by ``|``;
    bytes that are no text are a UUID where they are 16, otherwise hexadecimal. ``\\N`` is how
    MySQL and Hive write null.
    """
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    kind = array.type
    if pa.types.is_dictionary(kind):
        return as_strings(array.dictionary_decode())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        joined = ["|".join(map(str, filter(None, row or ()))) for row in array.to_pylist()]
        return as_strings(pa.array(joined, pa.string()))
    if pa.types.is_floating(kind):
        numbers = pc.cast(array, pa.float64())
        if pc.all(pc.equal(pc.floor(numbers), numbers), min_count=0).as_py() is not False and (
            (pc.max(pc.abs(numbers)).as_py() or 0) < 2**53
        ):
            array = numbers.cast(pa.int64())
    elif pa.types.is_fixed_size_binary(kind):
        array = pa.array(map(_text_of_padded, array.to_pylist()), pa.string())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        array = pa.array(map(_text_of_bytes, array.to_pylist()), pa.string())
    try:
        array = pc.cast(array, pa.string())
    except pa.ArrowNotImplementedError:  # structs, maps and the like
        values = [None if value is None else str(value) for value in array.to_pylist()]
        array = pa.array(values, pa.string())
    array = pc.utf8_trim_whitespace(pc.fill_null(array, ""))
    return pc.if_else(pc.equal(array, r"\N"), "", array)


def _text_of_padded(value: bytes | None) -> str:
    """Return what bytes of a fixed number hold: short texts are filled up with zeros."""
    text = (value or b"").rstrip(b"\0")
    if text.isascii() and text.decode("ascii").isprintable():
        return text.decode("ascii")
    return _of_no_text(value or b"")


def _text_of_bytes(value: bytes | None) -> str:
    try:
        return (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return _of_no_text(value or b"")


def _of_no_text(value: bytes) -> str:
    return str(UUID(bytes=value)) if len(value) == 16 else value.hex()
