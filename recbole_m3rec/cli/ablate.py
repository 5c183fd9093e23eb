"""``recbole-m3rec ablate``: train M3Rec without each of its parts and report what each adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.compare import add_common_options, say_what_became, settings_of
from recbole_m3rec.cli.parsers import Parser, UsageError
from recbole_m3rec.cluster.connect import connected
from recbole_m3rec.compare.comparison import compare
from recbole_m3rec.compare.runs import Run, configuration, first_seed
from recbole_m3rec.compare.settings import divide
from recbole_m3rec.config.data_checks import has_data
from recbole_m3rec.config.layers import properties_folder
from recbole_m3rec.config.yaml_files import ConfigurationError, read_yaml
from recbole_m3rec.data.dataset import TRAIN_POSITIONS, modality_sources
from recbole_m3rec.network.m3rec import GRADIENT_RULES, ID_INITS, SCORE_IDS, SCORES
from recbole_m3rec.support.suggestions import did_you_mean

WHOLE = "M3Rec"
PRESET = "presets/m3rec-published.yaml"

DESCRIPTION = """\
Train M3Rec without each of its parts, and report what each is worth.

Any setting is written --key=value and holds for every row that does not set it itself.
"""

EXAMPLES = """\
examples:
  recbole-m3rec ablate --dataset ml-100k --seeds 3
  recbole-m3rec ablate --dataset beauty --only "random features,shuffled features"
"""


class Variant(NamedTuple):
    """One row of the table.

    Attributes:
        name: what the table calls it.
        settings: what differs from the whole model.
        question: what the row answers, one sentence.
        model: its name in RecBole.
    """

    name: str
    settings: Mapping[str, Any]
    question: str
    model: str = "M3Rec"


def variants(config: Any) -> list[Variant]:
    """Return the rows for a configuration of M3Rec, the whole model first, none of them twice.

    Raises:
        ConfigurationError: it has no content modality, so there is nothing to leave out.
    """
    content = [source.modality for source in modality_sources(config)]
    if not content:
        raise ConfigurationError(
            "modalities: [] leaves M3Rec its IDs alone, and nothing to take away. Name at least one"
        )
    rows = [Variant(WHOLE, {}, f"The whole model, with {' and '.join(content)}.")]
    if len(content) > 1:
        for name in content:
            rest = [other for other in content if other != name]
            rows.append(Variant(f"without {name}", {"modalities": rest}, f"Does {name} help?"))
    rows += [
        Variant("ID alone", {}, "Does content help at all? This is Mamba4Rec.", "Mamba4Rec"),
        Variant(
            "random features",
            {"feature_rows": "random"},
            "Is it what features say? Their numbers are drawn at random.",
        ),
        Variant(
            "shuffled features",
            {"feature_rows": "shuffled"},
            "Is it whose they are? Features are dealt to the items anew, at random.",
        ),
        Variant("one shared expert", {"share_experts": True}, "Do modalities need own experts?"),
        Variant(
            "unshared Mamba blocks",
            {"share_mamba": False},
            "Does sharing help? Each modality has blocks of its own, and teaches them.",
        ),
        *_others(config, "modality_gradient", GRADIENT_RULES, "What should content teach blocks?"),
        *_others(config, "train_positions", TRAIN_POSITIONS, "How many targets a training row?"),
        *_others(config, "score", SCORES, "Do the lengths of vectors help or hurt?"),
        *_others(config, "repetition", (True, False), "What does learned repetition add?"),
        *_others(config, "low_pass", (0, 8), "Does the mean of the latest items help?"),
        *_others(config, "lr_scheduler", ("none", "linear"), "What does the decaying rate add?"),
        *_others(config, "id_init", ID_INITS, "Should IDs start from content?"),
        *_others(config, "score_ids", SCORE_IDS, "Should scores have ID vectors of their own?"),
        *_others(
            config, "feature_norm", ("none", "standardize", "whiten"), "Should features be scaled?"
        ),
        *_others(config, "hidden_size", (64, 128), "How wide should an item vector be?"),
        *_others(config, "train_batch_size", (512, 2048), "How many targets a step?"),
        Variant(
            "published preset",
            read_yaml(properties_folder() / PRESET),
            "What the authors' released program does, random codes in place of features included.",
        ),
    ]
    return [
        row
        for row in rows
        if row.name == WHOLE
        or row.model != WHOLE
        or any(config[key] != value for key, value in row.settings.items())
    ]


def _others(config: Any, key: str, choices: Iterable[Any], question: str) -> list[Variant]:
    """A row for every choice of a setting."""
    return [
        Variant(f"{key}: {choice}", {key: choice}, f"{question} The whole model: {config[key]}.")
        for choice in choices
    ]


def build_parser() -> Parser:
    """Return the parser of all that is no setting."""
    parser = Parser("ablate", DESCRIPTION, EXAMPLES)
    parser.add_argument("--dataset", required=True, help="name of a dataset with features")
    parser.add_argument("--only", metavar="A,B", help="these rows beside the whole model alone")
    add_common_options(parser, output=Path("ablation"))
    return parser


def chosen(rows: Sequence[Variant], only: str | None) -> list[Variant]:
    """Return the rows asked for, the whole model always among them.

    Raises:
        UsageError: a name is no row's.
    """
    if only is None:
        return list(rows)
    names = [name.strip() for name in only.split(",")]
    known = [row.name for row in rows]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--only {name!r} is no row, expected some of {', '.join(known)}."
                + did_you_mean(name, known)
            )
    return [row for row in rows if row.name in {WHOLE, *names}]


def ablate(arguments: Sequence[str]) -> int:
    """Do what the arguments ask for; return the exit code."""
    parser = build_parser()
    options, others = parser.parse_known_args(arguments)
    settings = settings_of(options, others, parser)
    of_model = divide(settings, ["M3Rec", "Mamba4Rec"], options.dataset)
    seed = first_seed("M3Rec", options.dataset, of_model["M3Rec"])
    whole = configuration(Run(WHOLE, "M3Rec", options.dataset, seed, of_model["M3Rec"]))
    has_data(whole)  # a dataset that is not there is no lack of features
    rows = chosen(variants(whole), options.only)
    runs = [
        Run(
            *(row.name, row.model, options.dataset, seed + more),
            settings={**_own(of_model, row.model), **row.settings},
        )
        for row in rows
        for more in range(options.seeds)
    ]
    with connected(options.cluster) as cluster:
        outcomes = compare(
            runs,
            options.output,
            options.jobs,
            cluster=cluster,
            reference=WHOLE,
            title=f"M3Rec without its parts, on {options.dataset}",
            notes=[f"{row.name}: {row.question}" for row in rows],
        )
    return say_what_became(outcomes, options.output)


def _own(of_model: Mapping[str, Mapping[str, Any]], model: str) -> dict[str, Any]:
    """The given settings that a model knows; Mamba4Rec refuses to be told its modalities."""
    ignored = {"modalities"} if model == "Mamba4Rec" else set()
    return {key: value for key, value in of_model[model].items() if key not in ignored}


main = partial(run_script, ablate)
