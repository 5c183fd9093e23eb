"""Which columns of an ``.item`` or ``.user`` file carry information."""

from __future__ import annotations

from dataclasses import dataclass

from recbole_m3rec.atomic.item_file import ItemFile

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


def shared_columns(file: ItemFile, sequence_separator: str = " ") -> list[Column]:
    """Return the columns of tokens, or short sequences of tokens, with values that rows share.

    There are none where there is no file.

    Raises:
        AtomicFileError: the file is not in the atomic format.
    """
    types = file.types() if file.path.is_file() else {}
    names = [name for name in types if types[name] in ("token", "token_seq")]
    names = [name for name in names if name != file.id_field]
    if not names:
        return []
    _, values = file.read(names)
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
