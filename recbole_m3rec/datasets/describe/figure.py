"""One figure of a dataset: histories, coverage, nearest neighbours of some items."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_m3rec.datasets.describe.features import Fit, ModalitySummary, Vectors, percent
from recbole_m3rec.datasets.describe.log import LogSummary
from recbole_m3rec.features.encoders.image_files import ImageFileError, read_image
from recbole_m3rec.support.safe_write import new_files

N_NEIGHBOURS = 5
_COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
_GREY = "0.55"
_PIXELS = (160, 200)
_HEAD = 0.42  # inches above the neighbours


@dataclass(frozen=True)
class Shown:
    """A modality as the picture shows it."""

    summary: ModalitySummary
    vectors: Vectors
    fit: Fit | None


def draw_summary(
    path: Path,
    name: str,
    whole: LogSummary,
    core: LogSummary,
    modalities: Mapping[str, Shown],
    examples: Sequence[int],
    titles: Sequence[str],
    images: Mapping[int, Path],
) -> None:
    """Write the picture as PNG, whole or not at all.

    Args:
        whole: the log as it is in the file.
        core: the log as it is after RecBole's filter.
        examples: items whose neighbours are shown.
        images: files by item; without any, titles stand for items.

    Raises:
        ImportError: matplotlib is not there; see :func:`recbole_m3rec.support.extras.no_pictures`.
        CannotWriteError: e.g. the disk is full.
    """
    from matplotlib.figure import Figure

    n_rows, n_columns = len(examples), 1 + N_NEIGHBOURS * max(len(modalities), 1)
    row_height = 2.05 if images else 0.8
    width, top = max(13.0, (1.12 if images else 1.3) * n_columns + 0.6), 2.9
    figure: Any = Figure(figsize=(width, top + _HEAD + row_height * n_rows), dpi=100)
    height = figure.get_figheight()
    figure.suptitle(f"{name}: {len(whole.lengths):,} users, {len(whole.popularity):,} items, "
                    f"{whole.n_interactions:,} interactions", y=1 - 0.12 / height, va="top",
                    fontsize=14, parse_math=False)  # fmt: skip
    panels = figure.subfigures(2, 1, height_ratios=[top, height - top], hspace=0)
    axes = panels[0].subplots(1, 3 + len(modalities))
    panels[0].subplots_adjust(left=0.05, right=0.985, top=0.78, bottom=0.16, wspace=0.32)
    _draw_lengths(axes[0], whole, core)
    _draw_popularity(axes[1], whole, core)
    _draw_shares(axes[2], modalities)
    for axis, (modality, shown), color in zip(axes[3:], modalities.items(), _COLORS, strict=False):
        _draw_fit(axis, modality, shown.fit, color)
    if examples and modalities:
        _draw_neighbours(panels[1], modalities, examples, titles, images)
    with new_files(path) as [file], file.writing(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file.file, format="png", metadata={"Software": None})


def _draw_lengths(axis: Any, whole: LogSummary, core: LogSummary) -> None:
    shortest, longest = int(whole.lengths.min()), int(whole.lengths.max())
    edges = np.unique(np.round(np.geomspace(shortest, longest + 1, 24)))
    for lengths, color, label in (
        (whole.lengths, _GREY, "in the file"),
        (core.lengths, "black", "after five-core"),
    ):
        if len(lengths):
            axis.hist(lengths, edges, histtype="step", color=color, label=label, linewidth=1.5)
    axis.set(xscale="log", title="length of histories", xlabel="interactions", ylabel="users")
    _mark(axis.xaxis, shortest, longest)
    axis.set_ylim(0, 1.4 * axis.get_ylim()[1])
    axis.legend(fontsize=7, loc="upper right", frameon=False)


def _draw_popularity(axis: Any, whole: LogSummary, core: LogSummary) -> None:
    for counts, color in ((whole.popularity, _GREY), (core.popularity, "black")):
        if len(counts):
            axis.plot(np.arange(1, len(counts) + 1), counts[::-1], color=color, linewidth=1.5)
    axis.set(xscale="log", yscale="log", title="popularity", xlabel="rank of the item")
    axis.set_ylabel("interactions")
    _mark(axis.xaxis, 1, len(whole.popularity))
    _mark(axis.yaxis, int(whole.popularity[0]), int(whole.popularity[-1]))


def _mark(axis: Any, first: int, last: int) -> None:
    """Put a few round numbers on a logarithmic axis."""
    steps = [step * 10**power for power in range(10) for step in (1, 2, 5)]
    inside = [step for step in steps if first <= step <= last]
    ticks = inside[:: -(-len(inside) // 6)] if len(inside) > 1 else sorted({first, last})
    axis.set_ticks(ticks, labels=[f"{tick:,}" for tick in ticks])
    axis.set_ticks([], minor=True)


def _draw_shares(axis: Any, modalities: Mapping[str, Shown]) -> None:
    names = list(modalities)
    if not names:
        axis.text(0.5, 0.5, "no features", ha="center", va="center", transform=axis.transAxes)
    for place, (shown, color) in enumerate(zip(modalities.values(), _COLORS, strict=False)):
        shares = (shown.summary.share_of_items, shown.summary.share_of_interactions)
        for offset, share, what in ((-0.2, shares[0], "items"), (0.2, shares[1], "interactions")):
            axis.barh(place + offset, share, 0.36, color=color, alpha=0.85 if offset < 0 else 0.45)
            axis.text(0.03, place + offset, f"{what} {percent(share)}", va="center", fontsize=8)
    axis.set(xlim=(0, 1), title="share with features", yticks=range(len(names)))
    axis.set_yticklabels(names)
    axis.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    axis.set_ylim(max(len(names), 1) - 0.4, -0.6)  # the first one on top


def _draw_fit(axis: Any, modality: str, fit: Fit | None, color: str) -> None:
    axis.set(title=f"{modality}: fit to histories", xlabel="similarity", yticks=[])
    if fit is None:
        axis.text(0.5, 0.5, "unknown", ha="center", va="center", transform=axis.transAxes)
        return
    both = np.concatenate([fit.random, fit.successive])
    low, high = np.quantile(both, [0.002, 0.998]).tolist()
    edges = np.linspace(low, max(high, low + 1e-6), 40)
    axis.hist(fit.random, edges, density=True, color=_GREY, alpha=0.5, label="random items")
    axis.hist(fit.successive, edges, density=True, histtype="step", color=color, linewidth=1.8,
              label="one after\nthe other")  # fmt: skip
    axis.text(0.97, 0.95, f"{100 * fit.share:.0f} %", ha="right", va="top", fontsize=15,
              color=color, transform=axis.transAxes)  # fmt: skip
    axis.text(0.97, 0.8, "(chance: 50 %)", ha="right", va="top", fontsize=7,
              transform=axis.transAxes)  # fmt: skip
    axis.set_ylim(0, 1.35 * axis.get_ylim()[1])
    axis.legend(fontsize=7, loc="upper left", frameon=False)


def _draw_neighbours(
    panel: Any,
    modalities: Mapping[str, Shown],
    examples: Sequence[int],
    titles: Sequence[str],
    images: Mapping[int, Path],
) -> None:
    gap = 0.25  # between blocks of columns, in columns
    n_columns = 1 + len(modalities) * (N_NEIGHBOURS + gap)
    inches = panel.figure.get_figheight() * panel.bbox.height / panel.figure.bbox.height
    left, right, over, under = 0.012, 0.988, 1 - _HEAD / inches, 0.005
    width, height = (right - left) / n_columns, (over - under) / len(examples)

    def cell(row: int, column: float) -> Any:
        bottom = over - (row + 1) * height
        return panel.add_axes((left + column * width, bottom, 0.94 * width, 0.97 * height))

    def head(column: float, n: int, text: str, color: str) -> None:
        x = left + (column + n / 2) * width
        style = {"ha": "center", "va": "bottom", "fontsize": 11, "color": color}
        panel.text(x, over + 0.06 / inches, text, parse_math=False, **style)

    head(0, 1, "item", "black")
    for block, (modality, shown) in enumerate(modalities.items()):
        first, color = 1 + gap + block * (N_NEIGHBOURS + gap), _COLORS[block % len(_COLORS)]
        head(first, N_NEIGHBOURS, f"nearest by {modality}", color)
        for row, item in enumerate(examples):
            nearest, alike = shown.vectors.nearest(item, N_NEIGHBOURS)
            if not shown.vectors.present[item]:
                none = cell(row, first)
                none.set_axis_off()
                none.text(0.5, 0.5, f"no {modality}", ha="center", va="center", color=_GREY)
            for place, (other, similarity) in enumerate(zip(nearest, alike, strict=True)):
                _draw_item(cell(row, first + place), titles[other], images.get(int(other)),
                           float(similarity), color, bool(images))  # fmt: skip
    for row, item in enumerate(examples):
        _draw_item(cell(row, 0), titles[item], images.get(item), None, "black", bool(images))


def _draw_item(
    axis: Any, title: str, image: Path | None, similarity: float | None, color: str, pictures: bool
) -> None:
    axis.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    for spine in axis.spines.values():
        spine.set(color=color, linewidth=1.6 if similarity is None else 0.6)
    picture = _thumbnail(image)
    room = 3 if pictures else 4
    text = textwrap.fill(title, 20, max_lines=room, placeholder=" …")
    if similarity is not None:
        text += f"\n{similarity:.2f}"
    if pictures:
        for spine in axis.spines.values():
            spine.set_visible(False)
        inner = axis.inset_axes((0, 0.27, 1, 0.73))
        inner.set(xticks=[], yticks=[], anchor="S")
        for spine in inner.spines.values():
            spine.set(color=color, linewidth=1.6 if similarity is None else 0.6)
        if picture is not None:
            inner.imshow(picture)
        else:
            inner.text(0.5, 0.5, "no picture", ha="center", va="center", fontsize=7, color=_GREY)
        axis.text(0.5, 0.25, text, ha="center", va="top", fontsize=7, parse_math=False)
        return
    if similarity is not None:
        axis.set_facecolor(color)
        axis.patch.set_alpha(min(max(similarity, 0), 1) * 0.5)
    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=7.5, parse_math=False)


def _thumbnail(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        image = read_image(path)
    except (ImageFileError, OSError):
        return None
    image.thumbnail(_PIXELS)
    return np.asarray(image)
