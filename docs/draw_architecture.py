"""Draw ``architecture.png``, the model at a glance: ``python docs/draw_architecture.py``.

Needs matplotlib, which the package itself does not.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

MODALITIES = {  # name: (height, fill, edge)
    "ID": (5.4, "#dbe9f6", "#2b6ca3"),
    "image": (3.6, "#fde5cf", "#c46a1b"),
    "text": (1.8, "#dcefdc", "#3b8a3e"),
}
GREY = ("#eeeeee", "#555555")


def box(ax, x, y, text, fill, edge, width=1.7, height=0.95, size=10):
    """Draw a box around a text, centred at ``x, y``."""
    shape = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0.02,rounding_size=0.1",
        facecolor=fill,
        edgecolor=edge,
        linewidth=1.4,
        zorder=2,
    )
    ax.add_patch(shape)
    ax.text(x, y, text, ha="center", va="center", fontsize=size, zorder=3)


def arrow(ax, start, end, colour="#555555"):
    """Draw an arrow between two points."""
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1.5)


def draw():
    """Return the figure: one lane per modality, the shared block across all lanes."""
    figure, ax = plt.subplots(figsize=(14.6, 6.2))
    ax.set(xlim=(0, 17.4), ylim=(-0.2, 7.4))
    ax.axis("off")

    frame = FancyBboxPatch(
        (6.35, 0.75),
        5.1,
        5.75,
        boxstyle="round,pad=0.02,rounding_size=0.15",
        facecolor="#fafafa",
        edgecolor="#999999",
        linestyle="--",
        zorder=0,
    )
    ax.add_patch(frame)
    ax.text(8.9, 6.72, "layer  × num_layers", ha="center", fontsize=11, color="#444444")

    for name, (y, fill, edge) in MODALITIES.items():
        is_id = name == "ID"
        box(ax, 1.1, y, f"{name}\nhistory", fill, edge)
        learned = "embedding\n(learned)" if is_id else "frozen features\n→ projector"
        box(ax, 3.25, y, learned, fill, edge)
        box(ax, 5.3, y, "dropout,\nlayer norm", fill, edge, width=1.45)
        box(ax, 10.35, y, f"{name}\nexpert", fill, edge, width=1.6)
        arrow(ax, (1.97, y), (2.38, y), edge)
        arrow(ax, (4.12, y), (4.55, y), edge)
        arrow(ax, (6.05, y), (6.83, y), edge)
        arrow(ax, (8.77, y), (9.53, y), edge)
        arrow(ax, (11.17, y), (12.63, y), edge)
        if not is_id:
            weight = {"image": "× α", "text": "× β"}[name]
            ax.text(11.95, y + 0.16, weight, ha="center", fontsize=11, color=edge)
    box(
        ax, 7.8, 3.6, "shared\nMamba block\n+ residual,\nlayer norm", "#e8e0f2", "#6b4a9c", 1.9, 5.3
    )

    box(ax, 13.3, 3.6, "fused\nquery\n[B, 3H]", *GREY, 1.3, 5.3)
    arrow(ax, (13.97, 3.6), (14.32, 3.6))
    ax.text(14.55, 3.58, "·", ha="center", va="center", fontsize=30)
    box(ax, 15.35, 3.6, "item table\n[n, 3H]", *GREY, 1.2, 1.5)
    arrow(ax, (15.97, 3.6), (16.3, 3.6))
    box(ax, 16.82, 3.6, "scores\n[B, n]", *GREY, 1.0, 1.2)

    # The item table is made of the same vectors that the histories look up.
    ax.plot([3.25, 3.25], [1.3, 0.35], color="#555555", linewidth=1.3, linestyle=":")
    ax.plot([3.25, 15.35], [0.35, 0.35], color="#555555", linewidth=1.3, linestyle=":")
    arrow(ax, (15.35, 0.35), (15.35, 2.83))
    label = "each item's ID, α·image and β·text vector, projected once a step"
    ax.text(9.0, 0.02, label, ha="center", fontsize=10, color="#444444")
    return figure


if __name__ == "__main__":
    draw().savefig(Path(__file__).with_name("architecture.png"), dpi=130, bbox_inches="tight")
