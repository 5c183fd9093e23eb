"""Counts problems of raw data by kind and logs the first few of each."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable
from pathlib import Path

_logger = logging.getLogger(__name__)


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

    def found(self) -> dict[str, int]:
        """Return the counts that are not 0."""
        return {kind: count for kind, count in self.counts.items() if count}
