// The C interface of the selective scan: memory, division of the work, final sums.
#include <algorithm>
#include <cmath>
#include <vector>

#include "dispatch.h"

namespace m3rec {

// The arguments of a call; ops/cpu/library.py has the same structure. float32, the last dimension
// contiguous, strides of rows in elements, pointers that may be null said so.
struct ScanArguments {
    const float *x, *dt, *A, *B, *C, *D;
    const float *dt_bias;        // or null: dt holds step sizes
    const float *z;              // or null: no gate
    const float *initial_state;  // or null: zeros
    const std::int32_t *cu_seqlens;
    Index x_stride, dt_stride, B_stride, C_stride, z_stride;
    Index sequences, tokens, channels, states;
    int last_only, threads, instruction_set;
};

namespace {

// Groups of sequences, and the fewest tokens worth one.
constexpr Index kMostGroups = 128;
constexpr Index kFewestTokens = 64;

// Panels of channel blocks. Forward they cost nothing. Backward each has sums of its own for the
// gradients of B and C, so there are fewer: 4 of them take 1.5 times the arithmetic of one. All
// these are constants, for the order of sums must depend neither on the machine nor on the number
// of threads.
constexpr Index kEnoughUnits = 16, kMostPanels = 8;
constexpr Index kEnoughBackwardUnits = 8, kMostBackwardPanels = 4;

// A call's inputs as the kernels take them.
class Problem {
public:
    Problem(const ScanArguments &call, const Kernels &kernels)
        : blocks((call.channels + kernels.width - 1) / kernels.width),
          packed_(blocks * call.states * kernels.width) {
        pack_decay_rates(call.A, call.channels, call.states, kernels.width, packed_.get());
        scan.x = call.x, scan.x_stride = call.x_stride, scan.dt = call.dt,
        scan.dt_stride = call.dt_stride;
        scan.B = call.B, scan.B_stride = call.B_stride, scan.C = call.C,
        scan.C_stride = call.C_stride;
        scan.A = packed_.get(), scan.D = call.D, scan.dt_bias = call.dt_bias;
        scan.z = call.z, scan.z_stride = call.z_stride;
        scan.initial_state = call.initial_state, scan.cu_seqlens = call.cu_seqlens;
        scan.tokens = call.tokens, scan.channels = call.channels, scan.states = call.states,
        scan.blocks = blocks;
        scan.last_only = call.last_only != 0;
        // A first token has no state to decay. Only NaN in A must be seen there, too.
        scan.decay_first = std::any_of(call.A, call.A + call.channels * call.states,
                                       [](float rate) { return std::isnan(rate); });
    }

    Scan scan{};
    const Index blocks;

private:
    // [channels, states] to [block][state][lane], times log2(e); padding lanes are 0.
    static void pack_decay_rates(const float *A, Index channels, Index states, Index width,
                                 float *packed) {
        const Index blocks = (channels + width - 1) / width;
        for (Index block = 0; block < blocks; ++block)
            for (Index s = 0; s < states; ++s)
                for (Index lane = 0; lane < width; ++lane) {
                    const Index channel = block * width + lane;
                    const float rate = channel < channels ? A[channel * states + s] : 0.0f;
                    packed[(block * states + s) * width + lane] =
                        static_cast<float>(rate * 1.4426950408889634);
                }
    }

    const Memory packed_;
};

// Consecutive sequences of about equally many tokens, cut at fixed places.
std::vector<Unit> make_groups(const std::int32_t *cu_seqlens, Index sequences, Index tokens,
                              Index blocks) {
    const Index target = std::max(kFewestTokens, (tokens + kMostGroups - 1) / kMostGroups);
    std::vector<Unit> groups;
    for (Index first = 0; first < sequences;) {
        Index last = first, longest = 0;
        while (last < sequences && cu_seqlens[last] - cu_seqlens[first] < target) {
            longest = std::max<Index>(longest, cu_seqlens[last + 1] - cu_seqlens[last]);
            ++last;
        }
        groups.push_back(
            Unit{first, last, 0, blocks, static_cast<Index>(groups.size()), 0, longest});
        first = last;
    }
    return groups;
}

// Panels that make `enough` units of about equal work, where one sequence is a large part of
// everything.
Index count_panels(const std::vector<Unit> &groups, const Scan &scan, Index enough, Index most) {
    Index largest = 0;
    for (const Unit &group : groups)
        largest = std::max<Index>(
            largest, scan.cu_seqlens[group.last_sequence] - scan.cu_seqlens[group.first_sequence]);
    const Index panels = scan.tokens > 0 ? (enough * largest + scan.tokens - 1) / scan.tokens : 1;
    return std::max<Index>(1, std::min({panels, most, scan.blocks}));
}

// Every group times every panel, the largest first so that none is left alone at the end.
std::vector<Unit> make_units(const std::vector<Unit> &groups, Index panels, Index blocks,
                             const std::int32_t *cu_seqlens) {
    std::vector<Unit> units;
    units.reserve(groups.size() * static_cast<std::size_t>(panels));
    for (Unit unit : groups)
        for (unit.panel = 0; unit.panel < panels; ++unit.panel) {
            unit.first_block = unit.panel * blocks / panels;
            unit.last_block = (unit.panel + 1) * blocks / panels;
            units.push_back(unit);
        }
    const auto tokens = [&](const Unit &unit) {
        return cu_seqlens[unit.last_sequence] - cu_seqlens[unit.first_sequence];
    };
    std::stable_sort(units.begin(), units.end(),
                     [&](const Unit &a, const Unit &b) { return tokens(a) > tokens(b); });
    return units;
}

// Sums over groups of a [groups][rows][lane] array, block by block: [block][rows of a block][lane]
// to doubles.
void add_rows(const float *partial, Index groups, Index group_floats, Index block,
              Index block_floats, double *sums) {
    std::fill(sums, sums + block_floats, 0.0);
    for (Index g = 0; g < groups; ++g) {
        const float *const part = partial + g * group_floats + block * block_floats;
        for (Index i = 0; i < block_floats; ++i) sums[i] += part[i];
    }
}

// Gradients of A, D and the bias of dt (null without one) from the groups' partial sums, which are
// block-major.
void add_groups(const Scan &scan, Index groups, Index width, Index threads, float *grad_A,
                float *grad_D, float *grad_dt_bias) {
    const Index block_floats = scan.states * width;
    parallel_for(scan.blocks, threads, [&](Index block, Index) {
        const Index channels = std::min(width, scan.channels - block * width);
        std::vector<double> sums(static_cast<std::size_t>(block_floats));
        add_rows(scan.grad_A, groups, scan.blocks * block_floats, block, block_floats, sums.data());
        for (Index lane = 0; lane < channels; ++lane)
            for (Index s = 0; s < scan.states; ++s)
                grad_A[(block * width + lane) * scan.states + s] =
                    static_cast<float>(sums[s * width + lane]);
        sums.resize(static_cast<std::size_t>(width));
        add_rows(scan.grad_D, groups, scan.blocks * width, block, width, sums.data());
        std::copy(sums.begin(), sums.begin() + channels, grad_D + block * width);
        if (grad_dt_bias == nullptr) return;
        add_rows(scan.grad_dt_bias, groups, scan.blocks * width, block, width, sums.data());
        std::copy(sums.begin(), sums.begin() + channels, grad_dt_bias + block * width);
    });
}

// Gradients of B or C from the panels' partial sums.
void add_panels(const float *partial, Index panels, Index count, Index threads, float *total) {
    const Index piece = 1 << 14;
    parallel_for((count + piece - 1) / piece, threads, [&](Index unit, Index) {
        const Index end = std::min(count, (unit + 1) * piece);
        for (Index i = unit * piece; i < end; ++i) {
            float sum = partial[i];
            for (Index panel = 1; panel < panels; ++panel) sum += partial[panel * count + i];
            total[i] = sum;
        }
    });
}

// Runs the units, each with the scratch memory of the thread that it falls to.
void run_units(const ScanArguments &call, const Scan &scan, const std::vector<Unit> &units,
               Index scratch_floats, void (*kernel)(const Scan &, const Unit &, float *)) {
    const Index count = static_cast<Index>(units.size()), threads = usable_threads(call.threads);
    const Index floats = round_to_line(scratch_floats);
    const Memory scratch(std::min(threads, count) * floats);
    parallel_for(count, threads, [&](Index unit, Index slot) {
        kernel(scan, units[unit], scratch.get() + slot * floats);
    });
}

}  // namespace

// y [tokens, channels], or [sequences, channels] with last_only; last_state [sequences, channels,
// states] or null.
M3REC_EXPORT int m3rec_scan_forward(const ScanArguments *call, float *y, float *last_state) try {
    const Kernels *const kernels = find_kernels(call->instruction_set);
    if (kernels == nullptr) return kNoSuchKernels;
    if (!sequences_are_sound(call->cu_seqlens, call->sequences, call->tokens)) return kBadSequences;
    Problem problem(*call, *kernels);
    Scan &scan = problem.scan;
    scan.y = y, scan.last_state = last_state;
    const std::vector<Unit> groups =
        make_groups(call->cu_seqlens, call->sequences, call->tokens, problem.blocks);
    const Index panels = count_panels(groups, scan, kEnoughUnits, kMostPanels);
    const std::vector<Unit> units = make_units(groups, panels, problem.blocks, call->cu_seqlens);
    run_units(*call, scan, units, kernels->forward_scratch(scan), kernels->forward);
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

// grad_y like y; the gradients of x, dt, A, B, C, D, dt_bias, z like these (null where the input
// is).
M3REC_EXPORT int m3rec_scan_backward(const ScanArguments *call, const float *grad_y,
                                     Index grad_y_stride, float *grad_x, float *grad_dt,
                                     float *grad_A, float *grad_B, float *grad_C, float *grad_D,
                                     float *grad_dt_bias, float *grad_z) try {
    const Kernels *const kernels = find_kernels(call->instruction_set);
    if (kernels == nullptr) return kNoSuchKernels;
    if (!sequences_are_sound(call->cu_seqlens, call->sequences, call->tokens)) return kBadSequences;
    Problem problem(*call, *kernels);
    Scan &scan = problem.scan;
    const std::vector<Unit> groups =
        make_groups(call->cu_seqlens, call->sequences, call->tokens, problem.blocks);
    const Index panels = count_panels(groups, scan, kEnoughBackwardUnits, kMostBackwardPanels);
    const std::vector<Unit> units = make_units(groups, panels, problem.blocks, call->cu_seqlens);

    const Index n_groups = static_cast<Index>(groups.size()), rows = call->tokens * call->states;
    const Index lanes = n_groups * problem.blocks * kernels->width;
    const Memory partial_A(lanes * call->states), partial_D(lanes),
        partial_bias(call->dt_bias ? lanes : 0);
    const Memory partial_B(panels > 1 ? panels * rows : 0),
        partial_C(panels > 1 ? panels * rows : 0);
    scan.grad_y = grad_y, scan.grad_y_stride = grad_y_stride;
    scan.grad_x = grad_x, scan.grad_dt = grad_dt, scan.grad_z = grad_z;
    scan.grad_B = panels > 1 ? partial_B.get() : grad_B,
    scan.grad_C = panels > 1 ? partial_C.get() : grad_C;
    scan.grad_A = partial_A.get(), scan.grad_D = partial_D.get(),
    scan.grad_dt_bias = partial_bias.get();

    Index longest = 0;
    for (const Unit &group : groups) longest = std::max(longest, group.longest);
    run_units(*call, scan, units, kernels->backward_scratch(scan, longest), kernels->backward);
    const Index threads = usable_threads(call->threads);
    add_groups(scan, n_groups, kernels->width, threads, grad_A, grad_D,
               call->dt_bias ? grad_dt_bias : nullptr);
    if (panels > 1) {
        add_panels(partial_B.get(), panels, rows, threads, grad_B);
        add_panels(partial_C.get(), panels, rows, threads, grad_C);
    }
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

// One token per row on kept states: state [tokens, channels, states] is replaced, y [tokens,
// channels].
M3REC_EXPORT int m3rec_scan_step(const ScanArguments *call, float *state, float *y) {
    const Kernels *const kernels = find_kernels(call->instruction_set);
    if (kernels == nullptr) return kNoSuchKernels;
    const Step rows{call->x,        call->dt,        call->A,        call->B,        call->C,
                    call->D,        call->dt_bias,   call->z,        state,          y,
                    call->x_stride, call->dt_stride, call->B_stride, call->C_stride, call->z_stride,
                    call->channels, call->states};
    const Index values = std::max<Index>(1, call->channels * call->states);
    const Index piece = std::max<Index>(1, (1 << 16) / values);  // rows worth a unit
    parallel_for((call->tokens + piece - 1) / piece, usable_threads(call->threads),
                 [&](Index unit, Index) {
                     kernels->step(rows, unit * piece, std::min(call->tokens, (unit + 1) * piece));
                 });
    return kDone;
}

}  // namespace m3rec
