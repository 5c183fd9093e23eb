"""A bundle as ONNX graphs: ``recbole-m3rec onnx BUNDLE --output FOLDER``.

The folder holds two graphs, checked against PyTorch when written, and plain files beside them:

- ``step.onnx``: vectors of one item by modality ``item.<m> [B, H]`` and states in; ``query`` and
  new states out;
- ``encode.onnx``: vectors of padded histories ``item.<m> [B, L, H]`` and ``mask [B, L]`` (1 where
  there is an item, padding on the right) in; ``query [B, (M + 1) · H]`` out;
- ``sequence.<m>.f32``, ``table.f32``: item vectors, row 0 padding, float32, little-endian;
- ``about.json``: sizes, item ids and titles, and what repetition adds by how long ago.

A score is the product of ``query`` and a row of ``table``, plus ``repetition[k - 1]`` for each time
that the item is the history's ``k``-th latest.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import warnings
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from recbole_m3rec.network.m3rec import M3RecLayer
from recbole_m3rec.network.mamba import MambaBlock, MambaState
from recbole_m3rec.network.packed import PackedSequences
from recbole_m3rec.ops.cpu.library import without_kernels
from recbole_m3rec.ops.cpu.linear import FEWEST_ROWS
from recbole_m3rec.serving.bundle.read import read_bundle
from recbole_m3rec.serving.recommender import Recommender
from recbole_m3rec.serving.stepper import step_by_modules
from recbole_m3rec.support.command_names import command
from recbole_m3rec.support.exit_codes import run_command
from recbole_m3rec.support.safe_write import new_files

ABOUT = "about.json"
OPSET = 18
TOLERANCE = 1e-4
CHECKED = 64  # histories that are compared with PyTorch


class OnnxError(RuntimeError):
    """Graphs that cannot be written, or do not agree with PyTorch."""


class Step(nn.Module):
    """One more item of each history, where its mask is 1; else all stays as it was.

    Takes query and states, then item vectors by modality, then the mask ``[B]``; returns query and
    states.
    """

    def __init__(self, shop: Recommender) -> None:
        super().__init__()
        # A copy, for its scans are to be written in PyTorch's operations.
        self.network = copy.deepcopy(shop.ranker.network)
        for module in self.network.modules():
            if isinstance(module, MambaBlock):
                module.scan_backend = "reference"
        self.names = self.network.modalities
        n_layers = len(self.network.layers)
        self.n_blocks = n_layers * len(self.names)  # a state each, of a modality in a layer
        # Of a state; a graph takes no input of no size.
        self.kinds: Sequence[str] = MambaState._fields
        if self.network.config.low_pass < 2:
            self.kinds = self.kinds[:2]

    def initial(self, n: int) -> list[Tensor]:
        """Return query and states of ``n`` histories without an item yet."""
        width = self.network.item_embedding.embedding_dim
        zeros = [torch.zeros(n, len(self.names) * width)]
        for _ in self.names:
            for layer in self.network.layers:
                zeros += self._empty_state(layer, n)[: len(self.kinds)]
        return zeros

    def _empty_state(self, layer: Any, n: int) -> MambaState:
        return cast(M3RecLayer, layer).shared.mamba.initial_state(n)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        n_kinds = len(self.kinds)
        old, mask = given[: 1 + n_kinds * self.n_blocks], given[-1]
        vectors = dict(zip(self.names, given[len(old) : -1], strict=True))
        rest = self._empty_state(self.network.layers[0], mask.shape[0])[n_kinds:]
        states = [MambaState(*old[i : i + n_kinds], *rest) for i in range(1, len(old), n_kinds)]
        query, after = step_by_modules(self.network, vectors, states)
        new = [query, *chain(*(state[:n_kinds] for state in after))]
        is_new = mask > 0
        return tuple(
            torch.where(is_new.view(-1, *[1] * (then.dim() - 1)), now, then)
            for then, now in zip(old, new, strict=True)
        )


def export_onnx(bundle: Path, output: Path) -> dict[str, float]:
    """Write the graphs of a bundle into a folder.

    Args:
        bundle: a bundle's folder.
        output: a folder, made if need be; graphs that are there are replaced.

    Returns:
        The greatest differences from PyTorch: of ``step`` and ``encode``.

    Raises:
        BundleError: the bundle cannot be read.
        OnnxError: onnx is not installed, a graph does not agree with PyTorch, or the folder holds
            other things.
        CannotWriteError: the files cannot be written.
    """
    _check_output(output)
    try:
        import onnx  # noqa: F401  (torch writes graphs by it)
        import onnxruntime
    except ImportError as error:
        raise OnnxError(f"{error}: pip install 'recbole_m3rec[onnx]'") from error
    shop = Recommender(read_bundle(bundle), index=False)
    step = Step(shop).eval()
    body = _trace(step)
    graphs = {"step": body, "encode": _scan(body, step)}
    sessions = {
        name: onnxruntime.InferenceSession(
            graph.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        for name, graph in graphs.items()
    }
    found = compare(shop, step, sessions)
    for name, difference in found.items():
        if not difference < TOLERANCE:
            raise OnnxError(f"{name}.onnx differs from PyTorch by {difference:.1e}")
    names = [f"{name}.onnx" for name in graphs]
    contents = [graph.SerializeToString() for graph in graphs.values()]
    for name, content in _items(shop).items():
        names.append(name)
        contents.append(content)
    with new_files(*(output / name for name in names)) as files:
        for file, content in zip(files, contents, strict=True):
            file.write(content)
    return found


def _check_output(output: Path) -> None:
    """Refuse a folder with anything but graphs of an earlier export in it, and what is none.

    Raises:
        OnnxError: that is so.
    """
    if output.is_dir():
        if not any(output.iterdir()) or _is_export(output / ABOUT):
            return
        raise OnnxError(
            f"{output}: there is a folder with other things in it. Name another, or empty it"
        )
    if os.path.lexists(output):
        raise OnnxError(f"{output}: there is a file or a link of this name. Name another folder")


def _is_export(about: Path) -> bool:
    try:
        content = json.loads(about.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"modalities", "bundle", "repetition"} <= content.keys()


def names_of(step: Step) -> tuple[list[str], list[str]]:
    """Return the names of query and states, and those of the other inputs."""
    states = [f"{kind}.{i}" for i in range(step.n_blocks) for kind in step.kinds]
    return ["query", *states], [*(f"item.{name}" for name in step.names), "mask"]


def _trace(step: Step) -> Any:
    """Return the step as an ONNX model for any number of histories."""
    old, more = names_of(step)
    width = step.network.item_embedding.embedding_dim
    items = [torch.randn(2, width) for _ in step.names]
    given = (*step.initial(2), *items, torch.ones(2))
    # For more rows, other products would be traced.
    batch = torch.export.Dim("batch", max=FEWEST_ROWS - 1)
    with without_kernels(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            step,
            given,
            input_names=[f"old.{name}" for name in old] + more,
            output_names=[f"new.{name}" for name in old],
            dynamic_shapes=[tuple({0: batch} for _ in given)],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.optimize()
    return program.model_proto


def _scan(body: Any, step: Step) -> Any:
    """Return a model that takes the step along histories: ONNX's Scan around it."""
    from onnx import TensorProto, helper

    old, more = names_of(step)
    nodes, states = [], []
    nodes.append(helper.make_node("Shape", ["mask"], ["n"], end=1))
    for name, like in zip(old, step.initial(1), strict=True):
        rest = helper.make_tensor("", TensorProto.INT64, [like.dim() - 1], list(like.shape[1:]))
        nodes.append(helper.make_node("Constant", [], [f"rest.{name}"], value=rest))
        nodes.append(helper.make_node("Concat", ["n", f"rest.{name}"], [f"shape.{name}"], axis=0))
        nodes.append(helper.make_node("ConstantOfShape", [f"shape.{name}"], [f"old.{name}"]))
        states.append(f"old.{name}")
    nodes.append(
        helper.make_node(
            "Scan",
            [*states, *more],
            ["query", *(f"last.{name}" for name in old[1:])],
            body=body.graph,
            num_scan_inputs=len(more),
            scan_input_axes=[1] * len(more),
        )
    )
    width = step.network.item_embedding.embedding_dim
    sizes: dict[str, list[str | int | None]] = {name: ["B", "L", width] for name in more}
    sizes["mask"] = ["B", "L"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, sizes[n]) for n in more]
    whole = len(step.names) * width
    outputs = [helper.make_tensor_value_info("query", TensorProto.FLOAT, ["B", whole])]
    graph = helper.make_graph(nodes, "encode", inputs, outputs)
    return helper.make_model(
        graph, opset_imports=body.opset_import, ir_version=body.ir_version, functions=body.functions
    )


def compare(
    shop: Recommender, step: Step, sessions: dict[str, Any], n: int = CHECKED, seed: int = 0
) -> dict[str, float]:
    """Return the greatest difference from PyTorch of queries of random histories, by graph."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, min(50, shop.max_history) + 1, n)
    histories = [draw.integers(1, len(shop.items) + 1, length) for length in lengths]
    expected = shop.ranker.encode(histories)[0].numpy()
    padded = np.zeros((n, lengths.max()), dtype=np.int64)
    for row, history in enumerate(histories):
        padded[row, : len(history)] = history
    mask = (np.arange(padded.shape[1]) < lengths[:, None]).astype(np.float32)
    sequence = shop.ranker.vectors.sequence
    items = {
        f"item.{name}": table[torch.from_numpy(padded)].float().numpy()
        for name, table in sequence.items()
    }
    (encoded,) = sessions["encode"].run(["query"], {**items, "mask": mask})
    old, _ = names_of(step)
    state = [tensor.numpy() for tensor in step.initial(n)]
    for place in range(padded.shape[1]):
        now = {name: values[:, place] for name, values in items.items()}
        before = {f"old.{name}": value for name, value in zip(old, state, strict=True)}
        state = sessions["step"].run(None, {**before, **now, "mask": mask[:, place]})
    return {
        "step": float(np.abs(state[0] - expected).max()),
        "encode": float(np.abs(encoded - expected).max()),
    }


def _items(shop: Recommender) -> dict[str, Any]:
    """Return the other files by name: vectors, and last what says that the export is one."""
    vectors = shop.ranker.vectors
    named = {f"sequence.{name}": table for name, table in vectors.sequence.items()}
    files = {
        f"{name}.f32": table.float().numpy().astype("<f4").data
        for name, table in {**named, "table": vectors.table}.items()
    }
    ago = PackedSequences(
        torch.arange(1, shop.max_history + 1), torch.tensor([0, shop.max_history]).int()
    )
    terms = shop.ranker.network.repetition(ago)
    content = {
        "modalities": list(shop.modalities),
        "hidden_size": shop.ranker.network.item_embedding.embedding_dim,
        "items": [shop.items.show(n) for n in range(1, len(shop.items) + 1)],
        "max_history": shop.max_history,
        "repetition": [] if terms is None else terms.values.flip(0).tolist(),
        "bundle": shop.digest,
    }
    return {**files, ABOUT: json.dumps(content).encode()}


def onnx_graphs(arguments: Sequence[str]) -> None:
    """Write the graphs that the arguments ask for."""
    parser = argparse.ArgumentParser(
        prog=command("onnx"), description="Write a bundle as ONNX graphs."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder that export wrote")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    options = parser.parse_args(arguments)
    found = export_onnx(options.bundle, options.output)
    checked = ", ".join(f"{name} {difference:.1e}" for name, difference in found.items())
    print(f"graphs: {options.output} (greatest difference from PyTorch: {checked})")


main = partial(run_command, onnx_graphs, when_interrupted="No graph has been written.")
