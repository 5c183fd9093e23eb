"""The compiled CPU scan against a per-step float64 loop, on any threads, with any kernels."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from recbole_m3rec.mamba import cpu, cpu_library

built, why = cpu.available()
pytestmark = pytest.mark.skipif(not built, reason=why)

RAGGED = [
    3,
    1,
    47,
    5,
    28,
    29,
    57,
    48,
    49,
    2,
    90,
]  # about the lengths at which the kernels change course
NAMES = ("x", "dt", "A", "B", "C", "D")


def inputs(
    lengths: Sequence[int], d_inner: int = 37, d_state: int = 8, seed: int = 0
) -> tuple[list[Tensor], Tensor]:
    """Random x, dt, A, B, C, D of plausible sizes, and cu_seqlens."""
    generator = torch.Generator().manual_seed(seed)
    n_tokens = sum(lengths)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    dt = torch.nn.functional.softplus(normal(n_tokens, d_inner) - 1)
    A = -torch.arange(1.0, d_state + 1) * (normal(d_inner, d_state) * 0.3).exp()
    tensors = [normal(n_tokens, d_inner), dt, A, normal(n_tokens, d_state)]
    tensors += [normal(n_tokens, d_state), normal(d_inner)]
    return tensors, ends_of(lengths)


def ends_of(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def reference(tensors: Sequence[Tensor], ends: Tensor, read_last: bool = False) -> Tensor:
    """The recurrence, one step of one sequence at a time."""
    x, dt, A, B, C, D = tensors
    rows = []
    for start, end in itertools.pairwise(ends.tolist()):
        state = torch.zeros_like(A)
        for t in range(start, end):
            state = torch.exp(dt[t, :, None] * A) * state + (dt[t] * x[t])[:, None] * B[t]
            if not read_last or t == end - 1:
                rows.append(state @ C[t] + D * x[t])
    return torch.stack(rows)


def with_gradients(
    function, tensors: Sequence[Tensor], ends: Tensor, read_last: bool = False
) -> list[Tensor]:
    """The function's result and the gradients of a fixed random weighting of it."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    y = function(leaves, ends, read_last)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return [y.detach(), *torch.autograd.grad(y, leaves, weights.to(y.dtype))]


def compiled(tensors: Sequence[Tensor], ends: Tensor, read_last: bool = False) -> Tensor:
    return cpu.selective_scan_cpu(*tensors, ends, read_last)


def assert_as_reference(
    tensors: Sequence[Tensor], ends: Tensor, read_last: bool = False, tolerance: float = 2e-6
) -> None:
    """Every value within ``tolerance`` of the largest one of its tensor."""
    found = with_gradients(compiled, tensors, ends, read_last)
    doubled = [tensor.double() for tensor in tensors]
    expected = with_gradients(reference, doubled, ends, read_last)
    for name, got, want in zip(("y", *NAMES), found, expected, strict=True):
        error = (got - want).abs().max() / want.abs().max().clamp(min=1e-30)
        assert got.isfinite().all(), name
        assert error < tolerance, f"{name}: {error:.1e}"


@pytest.fixture
def own_threads() -> Iterator[None]:
    """Have the library use its own threads instead of torch's."""
    library = cpu_library.load()[0]
    library.m3rec_use_openmp(None)
    yield
    library.m3rec_use_openmp(cpu_library.openmp_of_torch())


@pytest.mark.parametrize("read_last", [False, True])
@pytest.mark.parametrize("d_inner", [1, 7, 16, 37, 64])
def test_ragged_sequences_match_the_reference(kernels: str, d_inner: int, read_last: bool) -> None:
    assert_as_reference(*inputs(RAGGED, d_inner), read_last)


@pytest.mark.parametrize("read_last", [False, True])
@pytest.mark.parametrize("d_state", [1, 2, 3, 5, 8, 16, 17, 32, 64])
def test_every_state_size_matches_the_reference(
    kernels: str, d_state: int, read_last: bool
) -> None:
    assert_as_reference(*inputs([4, 33, 1, 60], 18, d_state), read_last)


@pytest.mark.parametrize("length", [1, 2, 27, 28, 29, 48, 49, 56, 57, 211])
def test_one_sequence_of_any_length_matches_the_reference(kernels: str, length: int) -> None:
    assert_as_reference(*inputs([length], 40, 24), tolerance=5e-6)


def softplus_and_gate(tensors: Sequence[Tensor], ends: Tensor, read_last: bool = False) -> Tensor:
    *six, dt_bias, z = tensors
    six[1] = torch.nn.functional.softplus(six[1] + dt_bias)
    return reference(six, ends, read_last) * torch.nn.functional.silu(z)


def fused(tensors: Sequence[Tensor], ends: Tensor, read_last: bool = False) -> Tensor:
    *six, dt_bias, z = tensors
    return cpu.selective_scan_cpu(*six, ends, read_last, dt_bias, z)


def raw_inputs(lengths: Sequence[int], read_last: bool = False) -> tuple[list[Tensor], Tensor]:
    """The same as `inputs`, with dt before its softplus, its bias, and z."""
    (x, dt, *others), ends = inputs(lengths)
    generator = torch.Generator().manual_seed(2)
    n_results = len(lengths) if read_last else len(x)
    raw = 4 * torch.randn(dt.shape, generator=generator) - 2
    bias = torch.randn(dt.shape[1], generator=generator)
    z = 4 * torch.randn(n_results, dt.shape[1], generator=generator)
    return [x, raw, *others, bias, z], ends


@pytest.mark.parametrize("read_last", [False, True])
def test_softplus_and_gate_within_the_scan_match_the_reference(
    kernels: str, read_last: bool
) -> None:
    tensors, ends = raw_inputs(RAGGED, read_last)
    found = with_gradients(fused, tensors, ends, read_last)
    doubled = [tensor.double() for tensor in tensors]
    expected = with_gradients(softplus_and_gate, doubled, ends, read_last)
    for name, got, want in zip(("y", *NAMES, "dt_bias", "z"), found, expected, strict=True):
        error = (got - want).abs().max() / want.abs().max()
        assert error < 2e-6, f"{name}: {error:.1e}"


@pytest.mark.parametrize("of", [-100.0, -30.0, -8.0, 0.0, 8.0, 30.0, 100.0])
def test_softplus_is_precise_relative_to_its_value(kernels: str, of: float) -> None:
    # One token with B · C = 1 and D = 0 returns its step size.
    one, raw = torch.ones(1, 40), torch.linspace(of - 1, of + 1, 40)[None]
    single = torch.ones(1, 1)
    y = cpu.selective_scan_cpu(
        one,
        raw,
        -torch.ones(40, 1),
        single,
        single,
        torch.zeros(40),
        ends_of([1]),
        False,
        0 * raw[0],
    )
    expected = torch.nn.functional.softplus(raw.double(), threshold=1000)
    torch.testing.assert_close(y.double(), expected, rtol=4e-6, atol=1e-37)


def test_only_one_of_softplus_and_gate_can_be_asked_for() -> None:
    (*six, bias, z), ends = raw_inputs(RAGGED)
    dt = torch.nn.functional.softplus(six[1] + bias).detach()
    both = fused([*six, bias, z], ends)
    gate_only = cpu.selective_scan_cpu(six[0], dt, *six[2:], ends, z=z)
    softplus_only = cpu.selective_scan_cpu(*six, ends, dt_bias=bias)
    torch.testing.assert_close(gate_only, both, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(softplus_only * z * z.sigmoid(), both, rtol=1e-5, atol=1e-5)
    for steps, options in ((six[1], {"dt_bias": bias}), (dt, {"z": z})):
        leaves = [steps.requires_grad_(), *(option.requires_grad_() for option in options.values())]
        y = cpu.selective_scan_cpu(six[0], leaves[0], *six[2:], ends, **options)
        gradients = torch.autograd.grad(y.sum(), leaves)
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("read_last", [False, True])
def test_thousands_of_single_tokens_match_the_closed_form(kernels: str, read_last: bool) -> None:
    tensors, ends = inputs([1] * 10_000, 8, 16)

    def closed_form(leaves: Sequence[Tensor], ends: Tensor, read_last: bool = False) -> Tensor:
        x, dt, A, B, C, D = leaves
        return x * (dt * (B * C).sum(1, keepdim=True) + D) + 0 * A.sum()

    found = with_gradients(compiled, tensors, ends, read_last)
    expected = with_gradients(closed_form, [tensor.double() for tensor in tensors], ends)
    for name, got, want in zip(("y", *NAMES), found, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=2e-5, msg=name)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 30.0, 1e4])
def test_tiny_and_huge_steps_match_the_reference(kernels: str, scale: float) -> None:
    (x, dt, A, B, C, D), ends = inputs([40, 3, 75])
    assert_as_reference([x, dt * scale, A, B, C, D], ends)


def test_growing_states_match_the_reference(kernels: str) -> None:
    (x, dt, A, B, C, D), ends = inputs([20, 3, 31])
    assert_as_reference([x, dt, -0.1 * A, B, C, D], ends, tolerance=1e-5)


def test_a_slow_decay_over_many_steps_is_not_biased(kernels: str) -> None:
    (x, dt, A, B, C, D), ends = inputs([1500], 4, 2)
    generator = torch.Generator().manual_seed(5)
    dt = 2e-3 * (0.5 + torch.rand(dt.shape, generator=generator))
    assert_as_reference([x, dt, A, B, C, D], ends, tolerance=3e-6)


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_nan_and_within_its_sequence(kernels: str, name: str) -> None:
    tensors, ends = inputs([5, 6, 40, 70])
    token = 5 + 2  # the third of the second sequence
    bad = tensors[NAMES.index(name)] = tensors[NAMES.index(name)].clone()
    if name in ("A", "D"):
        bad[0] = float("nan")
        assert compiled(tensors, ends)[:, 0].isnan().all()
        return
    bad[token] = float("nan")
    with torch.autograd.set_detect_anomaly(False):  # RecBole switches it on for the whole process
        y, *gradients = with_gradients(compiled, tensors, ends)
    assert y[token].isnan().all()
    grad_x, grad_dt, grad_A, grad_B, grad_C, _ = gradients
    assert gradients[NAMES.index("A")].isnan().any() or name == "C"
    others = torch.ones(len(y), dtype=torch.bool)
    others[5:11] = False
    for tensor in (y, grad_x, grad_dt, grad_B, grad_C):
        assert tensor[others].isfinite().all()
    if name != "C":
        assert y[token:11].isnan().all()


def test_infinite_decay_forgets(kernels: str) -> None:
    (x, dt, A, B, C, D), ends = inputs([9], 5, 4)
    assert_as_reference([x, dt, A * 1e30, B, C, D], ends)
    y = compiled([x, dt, torch.full_like(A, -torch.inf), B, C, D], ends)
    torch.testing.assert_close(y, x * (dt * (B * C).sum(1, keepdim=True) + D))


@pytest.mark.parametrize("read_last", [False, True])
def test_strided_inputs_give_the_results_of_contiguous_ones(read_last: bool) -> None:
    tensors, ends = inputs(RAGGED)
    expected = with_gradients(compiled, tensors, ends, read_last)
    columns = [torch.cat([t, t], -1)[..., : t.shape[-1]] for t in tensors]  # rows far apart
    transposed = [t.t().contiguous().t() if t.dim() == 2 else t for t in tensors]
    for strided in (columns, transposed):
        found = with_gradients(compiled, strided, ends, read_last)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_returned_in_kind(dtype: torch.dtype) -> None:
    tensors, ends = inputs(RAGGED)
    halves = [tensor.to(dtype) for tensor in tensors]
    found = with_gradients(compiled, halves, ends)
    expected = with_gradients(compiled, [tensor.float() for tensor in halves], ends)
    assert all(tensor.dtype == dtype for tensor in found)
    torch.testing.assert_close(found[0], expected[0].to(dtype), rtol=0, atol=0)
    mixed = compiled([halves[0], *tensors[1:]], ends)
    assert mixed.dtype == dtype


@pytest.mark.parametrize("lengths", [RAGGED * 6, [300], [1], [500, 2, 2, 1]])
@pytest.mark.parametrize("read_last", [False, True])
def test_any_number_of_threads_gives_the_same_bits(
    kernels: str, threads: None, lengths: list[int], read_last: bool
) -> None:
    tensors, ends = inputs(lengths, 70, 6)
    results = []
    for n_threads in (1, 2, 3, 64, 2):
        torch.set_num_threads(n_threads)
        results.append(with_gradients(compiled, tensors, ends, read_last))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_own_threads_give_the_same_bits_as_those_of_torch(threads: None, own_threads: None) -> None:
    tensors, ends = inputs(RAGGED * 6, 70, 6)
    results = []
    for n_threads in (1, 4):
        torch.set_num_threads(n_threads)
        results += [with_gradients(compiled, tensors, ends) for _ in range(20)]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("of_torch", [True, False])
def test_python_threads_may_call_at_once(
    request: pytest.FixtureRequest, threads: None, of_torch: bool
) -> None:
    if not of_torch:
        request.getfixturevalue("own_threads")
    torch.set_num_threads(2)
    problems = [inputs(RAGGED * 3, 40, 6, seed) for seed in range(4)]
    expected = [with_gradients(compiled, *problem) for problem in problems]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(10):
            found = with_gradients(compiled, *problems[i])
            if not all(torch.equal(a, b) for a, b in zip(found, expected[i], strict=True)):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(problems))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert not worker.is_alive()
    assert not wrong


def _forward_in_child(
    tensors: Sequence[Tensor], ends: Tensor, results: multiprocessing.Queue[list[list[float]]]
) -> None:
    results.put(compiled(tensors, ends).tolist())  # and nothing else: torch may hang after a fork


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("of_torch", [True, False])
def test_a_forked_child_can_call_too(
    request: pytest.FixtureRequest, threads: None, of_torch: bool
) -> None:
    if not of_torch:
        request.getfixturevalue("own_threads")
    torch.set_num_threads(2)
    tensors, ends = inputs(RAGGED * 6, 70, 6)
    expected = compiled(tensors, ends).tolist()
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[list[list[float]]] = context.Queue()
    child = context.Process(target=_forward_in_child, args=(tensors, ends, results))
    child.start()
    try:
        assert results.get(timeout=60) == expected
        child.join(timeout=60)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert compiled(tensors, ends).tolist() == expected


@pytest.mark.parametrize("d_state", [1, 5, 16, 33])
@pytest.mark.parametrize("d_inner", [3, 32])
def test_steps_on_kept_states_continue_a_scan(kernels: str, d_inner: int, d_state: int) -> None:
    lengths = [7, 60, 2]
    tensors, ends = inputs(lengths, d_inner, d_state)
    expected, last_state = cpu.selective_scan_states_cpu(*tensors, ends)
    state = torch.zeros_like(last_state)
    x, dt, A, B, C, D = tensors
    for t in range(max(lengths)):
        running = [i for i, length in enumerate(lengths) if t < length]
        at = torch.tensor([int(ends[i]) + t for i in running])
        kept = state[running].contiguous()
        y = cpu.selective_step_cpu(kept, x[at], dt[at], A, B[at], C[at], D)
        state[running] = kept
        torch.testing.assert_close(y, expected[at], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, last_state, rtol=1e-4, atol=1e-6)


def test_steps_take_softplus_and_gate_too(kernels: str) -> None:
    (x, raw, A, B, C, D, bias, z), ends = raw_inputs([1] * 5)
    expected, last_state = cpu.selective_scan_states_cpu(
        x, raw, A, B, C, D, ends, dt_bias=bias, z=z
    )
    state = torch.zeros_like(last_state)
    y = cpu.selective_step_cpu(state, x, raw, A, B, C, D, bias, z)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, last_state, rtol=1e-5, atol=1e-6)


def test_a_scan_continues_from_an_initial_state(kernels: str) -> None:
    lengths, cut = [60, 31, 100], [50, 1, 20]
    tensors, ends = inputs(lengths)
    whole, last_state = cpu.selective_scan_states_cpu(*tensors, ends)
    starts = ends[:-1].tolist()
    rest = [length - c for length, c in zip(lengths, cut, strict=True)]
    head = torch.cat([torch.arange(s, s + c) for s, c in zip(starts, cut, strict=True)])
    tail = torch.cat([torch.arange(e - r, e) for e, r in zip(ends[1:].tolist(), rest, strict=True)])
    x, dt, A, B, C, D = tensors

    def part(at: Tensor, part_lengths: list[int], state: Tensor | None) -> tuple[Tensor, Tensor]:
        return cpu.selective_scan_states_cpu(
            x[at], dt[at], A, B[at], C[at], D, ends_of(part_lengths), initial_state=state
        )

    y_head, state = part(head, cut, None)
    y_tail, state = part(tail, rest, state)
    torch.testing.assert_close(y_head, whole[head], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y_tail, whole[tail], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, last_state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("read_last", [False, True])
def test_the_operator_obeys_the_rules_of_torch_library(read_last: bool) -> None:
    tensors, ends = inputs([5, 2, 9], 4, 3)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    torch.library.opcheck(cpu._scan, (*leaves, ends, read_last, None, None))
    tensors, ends = raw_inputs([5, 2, 9], read_last)
    *six, dt_bias, z = [tensor.requires_grad_() for tensor in tensors]
    torch.library.opcheck(cpu._scan, (*six, ends, read_last, dt_bias, z))


def test_torch_compile_takes_it_whole() -> None:
    tensors, ends = inputs([5, 2, 9], 4, 3)
    whole = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    found, expected = with_gradients(whole, tensors, ends), with_gradients(compiled, tensors, ends)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_no_sequences_give_no_rows() -> None:
    tensors, ends = inputs([])
    y, *gradients = with_gradients(compiled, tensors, ends)
    assert y.shape == (0, 37)
    assert gradients[NAMES.index("A")].eq(0).all()


@pytest.mark.parametrize(
    "ends",
    [
        [0, 5, 16],  # ends early
        [0, 5, 18],  # beyond the last token
        [1, 5, 17],  # starts late
        [0, 5, 5, 17],  # an empty sequence
        [0, 9, 5, 17],  # goes back
    ],
)
def test_unsound_sequences_are_refused(ends: list[int]) -> None:
    tensors, _ = inputs([17])
    with pytest.raises(ValueError, match="cu_seqlens"):
        compiled(tensors, torch.tensor(ends, dtype=torch.int32))


def test_wrong_shapes_and_dtypes_are_refused_by_name() -> None:
    tensors, ends = inputs([17])
    for i, name in enumerate(NAMES):
        cut = [tensor[:-1] if j == i else tensor for j, tensor in enumerate(tensors)]
        with pytest.raises(ValueError, match="expected" if name == "x" else f"^{name}: expected"):
            compiled(cut, ends)
        whole = [tensor.double() if j == i else tensor for j, tensor in enumerate(tensors)]
        with pytest.raises(ValueError, match=f"^{name}: expected float32"):
            compiled(whole, ends)
    with pytest.raises(ValueError, match="^cu_seqlens: expected .* int32"):
        compiled(tensors, ends.long())
    with pytest.raises(ValueError, match="^dt_bias: expected"):
        cpu.selective_scan_cpu(*tensors, ends, dt_bias=torch.zeros(3))
    with pytest.raises(ValueError, match="^z: expected"):
        cpu.selective_scan_cpu(*tensors, ends, read_last=True, z=tensors[0])
    with pytest.raises(ValueError, match="^state: expected"):
        cpu.selective_step_cpu(torch.zeros(17, 8, 37), *tensors)
    with pytest.raises(ValueError, match="^initial_state: expected"):
        cpu.selective_scan_states_cpu(*tensors, ends, initial_state=torch.zeros(2, 37, 8))


def test_an_unknown_instruction_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECBOLE_M3REC_VECTORS", "mmx")
    cpu_library.load.cache_clear()
    try:
        usable, reason = cpu.available()
    finally:
        cpu_library.load.cache_clear()
    assert not usable
    assert "'mmx'" in reason
    assert "avx2" in reason
