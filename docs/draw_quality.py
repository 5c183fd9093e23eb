"""Draw ``quality/results.png``, who ranks how well: ``python docs/draw_quality.py``.

Measured figures come from ``quality/results.csv``, published ones from the papers that
``quality.md`` names. Needs matplotlib, which the package itself does not.
"""

from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")

from matplotlib import pyplot as plt

HERE = Path(__file__).parent
OURS, RECIPE, OTHERS = "#0072B2", "#85bfe0", "#b9b9b9"

# Bars: name, colour, and either a published NDCG@10 or (row, model) of the results.
BEAUTY = [
    (
        "M3Rec, text by TF-IDF",
        OURS,
        ("as shipped, text by the shipped recipe (tfidf-svd)", "M3Rec"),
    ),
    ("M3Rec, text by MiniLM", OURS, ("as shipped", "M3Rec")),
]
IDS = ("Mamba4Rec: M3Rec, IDs alone", RECIPE, ("IDs alone, with the filter", "Mamba4Rec"))
SASREC = (
    "SASRec, same recipe, IDs alone",
    RECIPE,
    ("SASRec on the same recipe, IDs alone", "SASRecMM"),
)
PANELS = {
    ("beauty", "U", "Beauty, history items stay candidates"): [
        *BEAUTY,
        IDS,
        SASREC,
        ("BARGE (2026, second-hand)", OTHERS, 0.0547),
        ("fMRLRec (EMNLP 2024)", OTHERS, 0.0520),
        ("M3Rec, the authors' log (2025)", OTHERS, 0.0435),
        ("SASRec of RecBole, best of four sources", OTHERS, 0.0432),
    ],
    ("beauty", "M", "Beauty, history items masked"): [
        *BEAUTY,
        IDS,
        SASREC,
        ("WEARec (2025)", OTHERS, 0.0614),
        ("BSARec (AAAI 2024)", OTHERS, 0.0610),
        ("SASRec, cross-entropy, width 256", OTHERS, 0.0588),
    ],
    ("ml-100k", "U", "MovieLens 100K, history items stay candidates"): [
        (
            "M3Rec, texts and posters",
            OURS,
            ("quick preset, text and posters (EfficientNet-Lite0)", "M3Rec"),
        ),
        ("M3Rec, texts", OURS, ("quick preset", "M3Rec")),
        ("Mamba4Rec: M3Rec, IDs alone", RECIPE, ("quick preset, IDs alone", "Mamba4Rec")),
        ("SASRec, IDs alone, the recipe over five epochs", *SASREC[1:]),
        ("GRU4Rec, published setting", OTHERS, ("as published", "GRU4Rec")),
        ("NARM, published setting", OTHERS, ("as published", "NARM")),
        ("SASRec, published setting", OTHERS, ("as published", "SASRec")),
        ("BERT4Rec, published setting", OTHERS, ("as published", "BERT4Rec")),
    ],
}


def values_of(results, source, dataset, protocol):
    """Return the test NDCG@10 of a bar for each of its seeds."""
    if isinstance(source, float):
        return [source]
    row, model = source
    is_its = (results["row"] == row) & (results["model"] == model) & (results["split"] == "test")
    found = results[is_its & (results["dataset"] == dataset) & (results["protocol"] == protocol)]
    if found.empty:
        raise SystemExit(
            f"quality/results.csv has no row {row!r} of {model} on {dataset}, {protocol}"
        )
    return list(found["ndcg@10"])


def draw(results):
    """Return the figure: a panel for each data set and protocol, bars from best to worst."""
    heights = [len(bars) for bars in PANELS.values()]
    figure, axes = plt.subplots(
        len(PANELS), figsize=(8.2, 8.6), layout="constrained", height_ratios=heights, sharex=True
    )
    for ax, ((dataset, protocol, title), bars) in zip(axes, PANELS.items(), strict=True):
        found = [
            (name, colour, values_of(results, source, dataset, protocol))
            for name, colour, source in bars
        ]
        found.sort(key=lambda bar: sum(bar[2]) / len(bar[2]))
        for place, (_, colour, values) in enumerate(found):
            mean = sum(values) / len(values)
            ax.barh(place, mean, color=colour, height=0.72)
            if len(values) > 1:  # each seed is a dot
                ax.plot(values, [place] * len(values), ".", color="#222222", markersize=4)
            ax.text(max(values) + 0.001, place, f"{mean:.4f}"[1:], va="center", fontsize=9)
        ax.set_yticks(range(len(found)), [name for name, *_ in found], fontsize=9)
        ax.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(left=False)
    axes[-1].set_xlabel("test NDCG@10; a dot is a seed")
    kinds = {
        "M3Rec as shipped": OURS,
        "same recipe and path": RECIPE,
        "published, or published setting": OTHERS,
    }
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in kinds.values()]
    figure.legend(handles, kinds, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    return figure


if __name__ == "__main__":
    draw(pd.read_csv(HERE / "quality" / "results.csv")).savefig(
        HERE / "quality" / "results.png", dpi=130
    )
