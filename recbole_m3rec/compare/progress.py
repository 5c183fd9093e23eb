"""Progress of the workers: a bar for each on a terminal, a line for each elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm


class Progress:
    """Shows jobs as they start, get on and end.

    Args:
        total: how many jobs there will be.
        what: what they are, for the bar of all.
        shown: False shows nothing.
    """

    def __init__(self, total: int, what: str = "runs", shown: bool = True) -> None:
        self.shown = shown
        self.bars: dict[Any, tqdm[Any]] = {}
        self.scores: dict[Any, str] = {}
        self.done = 0
        self.total = total
        self.terminal = shown and sys.stderr.isatty()
        self.all = tqdm(total=total, desc=what, unit="run") if self.terminal else None

    def started(self, job: Any) -> None:
        """Show a job that starts."""
        if not self.terminal:
            self.say(f"{job.label}: started")
            return
        taken = {bar.pos for bar in self.bars.values()}
        place = next(p for p in range(1, len(taken) + 2) if -p not in taken and p not in taken)
        self.bars[job] = tqdm(
            total=job.epochs, desc=job.label, unit="epoch", position=place, leave=False
        )

    def epoch(self, job: Any, epoch: Mapping[str, Any]) -> None:
        """Show how far a job is."""
        score = f"valid {job.metric} {epoch['score']:.4f}" if "score" in epoch else ""
        self.scores[job] = f"epoch {epoch['epoch'] + 1}, {score}"
        bar = self.bars.get(job)
        if bar is not None:
            bar.set_postfix_str(score, refresh=False)
            bar.update(epoch["epoch"] + 1 - bar.n)

    def ended(self, job: Any, failed: bool = False) -> None:
        """Show that a job ended."""
        self.done += 1
        bar = self.bars.pop(job, None)
        if bar is not None:
            bar.close()
        if self.all is not None:
            self.all.update()
        end = "failed" if failed else "stopped early" if job.stopped else "done"
        last = f", last {self.scores.pop(job)}" if job in self.scores else ""
        self.say(f"{job.label}: {end}{last} ({self.done} of {self.total})")

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        if self.terminal:
            tqdm.write(text, file=sys.stderr)
        elif self.shown:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bars away."""
        for bar in [*self.bars.values(), *filter(None, [self.all])]:
            bar.close()
