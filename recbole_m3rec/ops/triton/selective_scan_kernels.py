"""Triton kernels of the selective scan.

Shape letters: ``n`` tokens, ``d`` inner channels, ``s`` states, all masked, so any number will do.
A program holds the states ``[BLOCK_D, BLOCK_S]`` of some channels of one sequence in float32 and
walks along the tokens. Nothing is added up across programs: what has to be is written in parts,
which the caller sums in a fixed order.
"""
# The types of a kernel's parameters are Triton's business:
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

import triton
import triton.language as tl


@triton.jit
def softplus(v):
    # log1p(e) = 2 atanh(e / (2 + e)) by its series, so that tiny step sizes are precise too.
    e = tl.exp(-tl.abs(v))
    w = e / (2.0 + e)
    q = w * w
    series = 1.0 / 11 + q * (1.0 / 13 + q * (1.0 / 15))
    series = 1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9 + q * series))
    series = 1.0 + q * (1.0 / 3 + q * series)
    return tl.maximum(v, 0.0) + 2.0 * w * series


@triton.jit
def load(row, at, mask):
    return tl.load(row + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def advance(state, x_t, dt_t, B_t, rates):
    return tl.exp(dt_t[:, None] * rates) * state + (dt_t * x_t)[:, None] * B_t[None, :]


@triton.jit
def forward(
    x, dt, A, B, C, D, dt_bias, z, initial, cu_seqlens, y, last,
    x_stride, dt_stride, B_stride, C_stride, z_stride, d_inner, d_state,
    HAS_BIAS: tl.constexpr, HAS_Z: tl.constexpr, HAS_INITIAL: tl.constexpr,
    HAS_LAST: tl.constexpr, READ_LAST: tl.constexpr, IS_STEP: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Scan one sequence; with ``IS_STEP`` sequence ``i`` is token ``i`` alone."""
    sequence = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    s = tl.arange(0, BLOCK_S)
    in_d, in_s = d < d_inner, s < d_state
    at_ds = d[:, None] * d_state + s[None, :]
    in_ds = in_d[:, None] & in_s[None, :]

    rates, skip = load(A, at_ds, in_ds), load(D, d, in_d)
    if HAS_BIAS:
        bias = load(dt_bias, d, in_d)
    if IS_STEP:
        start = sequence
        end = sequence + 1
    else:
        start = tl.load(cu_seqlens + sequence).to(tl.int64)
        end = tl.load(cu_seqlens + sequence + 1).to(tl.int64)
    own_state = sequence * d_inner * d_state + at_ds
    state = tl.zeros([BLOCK_D, BLOCK_S], tl.float32)
    if HAS_INITIAL:
        state = load(initial, own_state, in_ds)

    for t in range(start, end):
        x_t, dt_t = load(x + t * x_stride, d, in_d), load(dt + t * dt_stride, d, in_d)
        if HAS_BIAS:
            dt_t = softplus(dt_t + bias)
        state = advance(state, x_t, dt_t, load(B + t * B_stride, s, in_s), rates)
        if not READ_LAST:
            C_t = load(C + t * C_stride, s, in_s)
            y_t = tl.sum(state * C_t[None, :], 1) + skip * x_t
            if HAS_Z:
                z_t = load(z + t * z_stride, d, in_d)
                y_t *= z_t * tl.sigmoid(z_t)
            tl.store(y + t * d_inner + d, y_t, mask=in_d)

    if READ_LAST:
        C_t = load(C + (end - 1) * C_stride, s, in_s)
        y_t = tl.sum(state * C_t[None, :], 1) + skip * load(x + (end - 1) * x_stride, d, in_d)
        if HAS_Z:
            z_t = load(z + sequence * z_stride, d, in_d)
            y_t *= z_t * tl.sigmoid(z_t)
        tl.store(y + sequence * d_inner + d, y_t, mask=in_d)
    if HAS_LAST:
        tl.store(last + own_state, state, mask=in_ds)


@triton.jit
def backward(
    grad_y, x, dt, A, B, C, D, dt_bias, z, cu_seqlens, groups, checkpoints, chunk_states,
    grad_x, grad_dt, grad_z, part_A, part_B, part_C, part_D, part_bias,
    grad_y_stride, x_stride, dt_stride, B_stride, C_stride, z_stride, n_tokens, d_inner, d_state,
    HAS_BIAS: tl.constexpr, HAS_Z: tl.constexpr, READ_LAST: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Gradients of the sequences of a group, ``groups[g]`` to ``groups[g + 1]``.

    The states are recomputed: once along the sequence, keeping those at the start of every chunk of
    ``CHUNK`` tokens in ``checkpoints`` (row ``t // CHUNK`` is no other chunk's, as two such starts
    are at least ``CHUNK`` tokens apart), then chunk by chunk from the last to the first, keeping
    those of one chunk in ``chunk_states``.
    """
    group, block = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    rows = tl.arange(0, BLOCK_D)
    d = block * BLOCK_D + rows
    s = tl.arange(0, BLOCK_S)
    in_d, in_s = d < d_inner, s < d_state
    at_ds = d[:, None] * d_state + s[None, :]
    in_ds = in_d[:, None] & in_s[None, :]
    kept = chunk_states + (group * tl.num_programs(1) + block) * CHUNK * BLOCK_D * BLOCK_S
    at_kept = rows[:, None] * BLOCK_S + s[None, :]

    rates, skip = load(A, at_ds, in_ds), load(D, d, in_d)
    if HAS_BIAS:
        bias = load(dt_bias, d, in_d)
        sum_bias = tl.zeros([BLOCK_D], tl.float32)
    sum_A = tl.zeros([BLOCK_D, BLOCK_S], tl.float32)
    sum_D = tl.zeros([BLOCK_D], tl.float32)

    for sequence in range(tl.load(groups + group), tl.load(groups + group + 1)):
        start = tl.load(cu_seqlens + sequence).to(tl.int64)
        end = tl.load(cu_seqlens + sequence + 1).to(tl.int64)
        n_chunks = (end - start + CHUNK - 1) // CHUNK

        state = tl.zeros([BLOCK_D, BLOCK_S], tl.float32)
        for t in range(start, start + (n_chunks - 1) * CHUNK):
            x_t, dt_t = load(x + t * x_stride, d, in_d), load(dt + t * dt_stride, d, in_d)
            if HAS_BIAS:
                dt_t = softplus(dt_t + bias)
            state = advance(state, x_t, dt_t, load(B + t * B_stride, s, in_s), rates)
            if (t + 1 - start) % CHUNK == 0:
                row = ((t + 1) // CHUNK) * d_inner * d_state
                tl.store(checkpoints + row + at_ds, state, mask=in_ds)

        grad_state = tl.zeros([BLOCK_D, BLOCK_S], tl.float32)
        for later in range(n_chunks):
            begin = start + (n_chunks - 1 - later) * CHUNK
            n_here = tl.minimum(end - begin, CHUNK)
            tl.debug_barrier()  # other threads of the program may have written what this one reads
            state = tl.zeros([BLOCK_D, BLOCK_S], tl.float32)
            if begin > start:
                row = (begin // CHUNK) * d_inner * d_state
                state = load(checkpoints + row, at_ds, in_ds)
            for i in range(n_here):
                t = begin + i
                tl.store(kept + i * BLOCK_D * BLOCK_S + at_kept, state)
                x_t, dt_t = load(x + t * x_stride, d, in_d), load(dt + t * dt_stride, d, in_d)
                if HAS_BIAS:
                    dt_t = softplus(dt_t + bias)
                state = advance(state, x_t, dt_t, load(B + t * B_stride, s, in_s), rates)
            tl.debug_barrier()

            for back in range(n_here):
                t = begin + n_here - 1 - back
                before = tl.load(kept + (n_here - 1 - back) * BLOCK_D * BLOCK_S + at_kept)
                x_t, dt_t = load(x + t * x_stride, d, in_d), load(dt + t * dt_stride, d, in_d)
                B_t, C_t = load(B + t * B_stride, s, in_s), load(C + t * C_stride, s, in_s)
                slope = tl.full([BLOCK_D], 1.0, tl.float32)  # of dt by what was given as dt
                if HAS_BIAS:
                    slope = tl.sigmoid(dt_t + bias)
                    dt_t = softplus(dt_t + bias)
                decay = tl.exp(dt_t[:, None] * rates)
                state = decay * before + (dt_t * x_t)[:, None] * B_t[None, :]

                out_row, is_read = t, in_d
                if READ_LAST:  # no channel at all before the last token
                    out_row, is_read = sequence, d + (end - 1 - t) * d_inner < d_inner
                grad = load(grad_y + out_row * grad_y_stride, d, is_read)
                if HAS_Z:
                    z_t = load(z + out_row * z_stride, d, is_read)
                    gate = tl.sigmoid(z_t)
                    y_t = tl.sum(state * C_t[None, :], 1) + skip * x_t
                    grad_z_t = grad * y_t * gate * (1.0 + z_t * (1.0 - gate))
                    tl.store(grad_z + out_row * d_inner + d, grad_z_t, mask=is_read)
                    grad = grad * z_t * gate

                at_part = (block * n_tokens + t) * d_state + s
                tl.store(part_C + at_part, tl.sum(state * grad[:, None], 0), mask=in_s)
                grad_state += grad[:, None] * C_t[None, :]
                tl.store(part_B + at_part, tl.sum(grad_state * (dt_t * x_t)[:, None], 0), mask=in_s)
                grad_input = tl.sum(grad_state * B_t[None, :], 1)  # of dt_t · x_t
                grad_state *= decay
                # of dt_t · A: 0 at a first token, which has no state before it
                grad_exponent = tl.where(t > start, grad_state * before, 0.0)
                sum_A += grad_exponent * dt_t[:, None]
                grad_dt_t = (grad_input * x_t + tl.sum(grad_exponent * rates, 1)) * slope
                if HAS_BIAS:
                    sum_bias += grad_dt_t
                sum_D += grad * x_t
                tl.store(grad_dt + t * d_inner + d, grad_dt_t, mask=in_d)
                tl.store(grad_x + t * d_inner + d, grad_input * dt_t + grad * skip, mask=in_d)

    tl.store(part_A + group * d_inner * d_state + at_ds, sum_A, mask=in_ds)
    tl.store(part_D + group * d_inner + d, sum_D, mask=in_d)
    if HAS_BIAS:
        tl.store(part_bias + group * d_inner + d, sum_bias, mask=in_d)
