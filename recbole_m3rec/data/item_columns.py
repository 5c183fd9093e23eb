"""Which columns of an `.item` or `.user` file tell a model something that its rows share."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from recbole_m3rec.data.item_file import read_item_fields

# A sequence longer than this is prose: a model that embeds each of its words for every item of
# every history would not fit into memory.
LONGEST = 32

# A column in which a value stands in fewer rows than this, on average, tells rows apart but does
# not tell what they have in common.
ROWS_PER_VALUE = 2


@dataclass(frozen=True)
class Column:
    """A column with values that rows share: its type, how many different values it has."""

    name: str
    kind: str
    n_values: int


def column_types(path: Path, separator: str = "\t", encoding: str = "utf-8") -> dict[str, str]:
    """Return the type of each column by its name, from the header; {} where there is no file."""
    if not path.is_file():
        return {}
    with open(path, encoding=encoding, errors="replace", newline="") as file:
        header = next(csv.reader(file, delimiter=separator), [])
    return {name: kind for name, _, kind in (field.partition(":") for field in header)}


def shared_columns(
    path: Path,
    id_field: str,
    separator: str = "\t",
    sequence_separator: str = " ",
    encoding: str = "utf-8",
) -> list[Column]:
    """Return the token columns with values that rows share, short sequences of tokens included.

    Raises:
        ItemFileError: the file is not in the atomic format.
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
    found = []
    for name, column in zip(names, values, strict=True):
        if types[name] == "token":
            rows = [[value] if value else [] for value in column]
        else:
            rows = [[word for word in value.split(sequence_separator) if word] for value in column]
        n_values = len({value for row in rows for value in row})
        shares = sum(len(set(row)) for row in rows) >= ROWS_PER_VALUE * n_values
        if n_values > 1 and shares and max(map(len, rows)) <= LONGEST:
            found.append(Column(name, types[name], n_values))
    return found
