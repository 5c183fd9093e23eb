"""Counts problems of raw data by kind and logs the first few of each."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_logger = logging.getLogger(__name__)


@dataclass
class Noted:
    """The cases of a piece of a file, lines counted from its first; its file is told later."""

    cases: dict[str, tuple[list[int], int]] = field(default_factory=dict)

    def add(self, kind: str, lines: Sequence[int]) -> None:
        """Count a case for each of these lines, of which the first few are kept."""
        first, n = self.cases.get(kind, ([], 0))
        self.cases[kind] = ([*first, *lines[: 10 - len(first)]], n + len(lines))


class Problems:
    """Counts by kind, in the order in which kinds were declared.

    Args:
        kinds: by key, what the log says of one such case.
        shown: how many cases of each kind are logged.
    """

    def __init__(self, kinds: dict[str, str], shown: int = 3) -> None:
        self.kinds = kinds
        self.counts = dict.fromkeys(kinds, 0)
        self._shown = shown
        self._logged = dict.fromkeys(kinds, 0)

    def add(
        self,
        kind: str,
        path: Path | zipfile.Path | None = None,
        lines: Iterable[int] = (),
        n: int = 1,
    ) -> None:
        """Count ``n`` cases of a kind; ``lines`` of ``path`` are where the first of them stand."""
        self.counts[kind] += n
        if path is None:
            return
        for line in lines:
            if self._logged[kind] >= self._shown:
                return
            self._logged[kind] += 1
            last = self._logged[kind] == self._shown
            more = "; further ones are only counted" if last else ""
            _logger.warning("%s:%d: %s%s", path, line, self.kinds[kind], more)

    def add_all(self, noted: Noted, path: Path, lines_before: int) -> None:
        """Count the cases of a piece of a file, which so many lines come before."""
        for kind, (lines, n) in noted.cases.items():
            self.add(kind, path, [lines_before + line for line in lines], n)

    def found(self) -> dict[str, int]:
        """Return the counts that are not 0."""
        return {kind: count for kind, count in self.counts.items() if count}
