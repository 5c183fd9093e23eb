"""The columns of a piece of a review file, and the same as bytes."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pyarrow as pa

from recbole_m3rec.datasets.io.problems import Noted

_IDS = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [("user", _IDS), ("item", _IDS), ("rating", pa.float32()), ("time", pa.int64())]
)


class ParsedReviews(NamedTuple):
    """What a piece of a review file holds.

    ``columns`` are in parts, by name: ``user`` and ``item`` Arrow's dictionaries of texts,
    ``rating`` float32, ``time`` int64.
    """

    n_lines: int
    columns: list[dict[str, Any]]
    noted: Noted

    def to_bytes(self) -> bytes:
        """Return an Arrow stream."""
        about = {"n_lines": self.n_lines, "cases": self.noted.cases}
        schema = _SCHEMA.with_metadata({"about": json.dumps(about)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as stream:
            for part in self.columns:
                stream.write_batch(pa.record_batch(list(part.values()), schema=schema))
        return sink.getvalue().to_pybytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> ParsedReviews:
        """Read what :meth:`to_bytes` made."""
        with pa.ipc.open_stream(content) as stream:
            about = json.loads(stream.schema.metadata[b"about"])
            columns = [dict(zip(_SCHEMA.names, batch.columns, strict=True)) for batch in stream]
        for part in columns:
            for name in ("rating", "time"):  # copies, that the other bytes need not stay
                part[name] = part[name].to_numpy().copy()
        return cls(about["n_lines"], columns, Noted(about["cases"]))
