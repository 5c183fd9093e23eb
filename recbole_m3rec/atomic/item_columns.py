"""Which columns of an ``.item`` or ``.user`` file carry information."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recbole_m3rec.atomic.atomic_file import read_header
from recbole_m3rec.atomic.item_file import read_item_fields

# A column whose rows have more words than this, on average, is prose.
WORDS_A_ROW = 16

# A column with fewer rows than this to each of its values tells rows apart, as names do, and not
# what they have in common.
ROWS_A_VALUE = 2


@dataclass(frozen=True)
class Column:
    """A column with values that rows share: how many it has, how many its longest row has."""

    name: str
    n_values: int
    longest: int


def column_types(path: Path, separator: str = "\t", encoding: str = "utf-8") -> dict[str, str]:
    """Return the type of each column by its name, from the header; {} where there is no file.

    Raises:
        AtomicFileError: line 1 is no header.
    """
    if not path.is_file():
        return {}
    return read_header(path, separator, encoding)


def shared_columns(
    path: Path,
    id_field: str,
    separator: str = "\t",
    sequence_separator: str = " ",
    encoding: str = "utf-8",
) -> list[Column]:
    """Return the columns of tokens, or short sequences of tokens, with values that rows share.

    Raises:
        AtomicFileError: the file is not in the atomic format.
    """
    types = column_types(path, separator, encoding)
    names = [
        name for name, kind in types.items() if kind in ("token", "token_seq") and name != id_field
    ]
    if not names:
        return []
    _, values = read_item_fields(
        path, names, item_id_field=id_field, field_separator=separator, encoding=encoding
    )
    columns = []
    for name, column in zip(names, values, strict=True):
        if types[name] == "token":
            rows = [[value] if value else [] for value in column]
        else:
            rows = [[word for word in value.split(sequence_separator) if word] for value in column]
        n_values = len({value for row in rows for value in row})
        is_short = sum(map(len, rows)) <= WORDS_A_ROW * len(rows)
        if n_values > 1 and n_values * ROWS_A_VALUE <= len(rows) and is_short:
            columns.append(Column(name, n_values, max(map(len, rows))))
    return columns
