// The C interface of the selective scan: checks, memory, division of the work, choice of kernels.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#include <vector>

#include "parallel.h"

#define M3REC_EXPORT extern "C" __attribute__((visibility("default")))

namespace m3rec {
namespace {

enum Status { kDone = 0, kBadSequences = 1, kNoMemory = 2, kNoSuchKernels = 3 };

// Groups of sequences, and the fewest tokens worth one.
constexpr Index kMostGroups = 128;
constexpr Index kFewestTokens = 64;

// Panels of channel blocks. Forward they cost nothing. Backward each has sums of its own for the gradients
// of B and C, so there are fewer: 4 of them take 1.5 times the arithmetic of one. All these are constants, for
// the order of sums must depend neither on the machine nor on the number of threads.
constexpr Index kEnoughUnits = 16, kMostPanels = 8;
constexpr Index kEnoughBackwardUnits = 8, kMostBackwardPanels = 4;

// Instruction sets by number: 0 any machine, 1 AVX2, 2 AVX-512; -1 the best that runs here.
const Kernels *find_kernels(int set) {
#ifdef M3REC_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if (avx512 && (set == -1 || set == 2)) return &kAvx512Kernels;
    if (avx2 && (set == -1 || set == 1)) return &kAvx2Kernels;
#endif
    return set == -1 || set == 0 ? &kGenericKernels : nullptr;
}

bool sequences_are_sound(const std::int32_t *cu_seqlens, Index sequences, Index tokens) {
    if (cu_seqlens[0] != 0 || cu_seqlens[sequences] != tokens) return false;
    for (Index i = 0; i < sequences; ++i)
        if (cu_seqlens[i + 1] <= cu_seqlens[i]) return false;
    return true;
}

// Memory for the threads of a call, on cache-line borders so that no two threads share a line.
class Memory {
public:
    explicit Memory(Index floats) {
        if (posix_memalign(&data_, 64, sizeof(float) * static_cast<std::size_t>(floats > 0 ? floats : 1)) != 0) throw std::bad_alloc();
    }
    ~Memory() { std::free(data_); }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    float *get() const { return static_cast<float *>(data_); }

private:
    void *data_ = nullptr;
};

Index round_to_line(Index floats) { return (floats + 15) / 16 * 16; }

// Consecutive sequences of about equally many tokens, cut at fixed places.
std::vector<Unit> make_groups(const std::int32_t *cu_seqlens, Index sequences, Index tokens, Index blocks) {
    const Index target = std::max(kFewestTokens, (tokens + kMostGroups - 1) / kMostGroups);
    std::vector<Unit> groups;
    for (Index first = 0; first < sequences;) {
        Index last = first, longest = 0;
        while (last < sequences && cu_seqlens[last] - cu_seqlens[first] < target) {
            longest = std::max<Index>(longest, cu_seqlens[last + 1] - cu_seqlens[last]);
            ++last;
        }
        groups.push_back(Unit{first, last, 0, blocks, static_cast<Index>(groups.size()), 0, longest});
        first = last;
    }
    return groups;
}

// Panels that make `enough` units of about equal work, where one sequence is a large part of everything.
Index count_panels(const std::vector<Unit> &groups, const Scan &scan, Index enough, Index most) {
    Index largest = 0;
    for (const Unit &group : groups)
        largest = std::max<Index>(largest, scan.cu_seqlens[group.last_sequence] - scan.cu_seqlens[group.first_sequence]);
    const Index panels = scan.tokens > 0 ? (enough * largest + scan.tokens - 1) / scan.tokens : 1;
    return std::max<Index>(1, std::min({panels, most, scan.blocks}));
}

// Every group times every panel, the largest first so that none is left alone at the end.
std::vector<Unit> make_units(const std::vector<Unit> &groups, Index panels, Index blocks, const std::int32_t *cu_seqlens) {
    std::vector<Unit> units;
    units.reserve(groups.size() * static_cast<std::size_t>(panels));
    for (Unit unit : groups)
        for (unit.panel = 0; unit.panel < panels; ++unit.panel) {
            unit.first_block = unit.panel * blocks / panels;
            unit.last_block = (unit.panel + 1) * blocks / panels;
            units.push_back(unit);
        }
    const auto tokens = [&](const Unit &unit) { return cu_seqlens[unit.last_sequence] - cu_seqlens[unit.first_sequence]; };
    std::stable_sort(units.begin(), units.end(), [&](const Unit &a, const Unit &b) { return tokens(a) > tokens(b); });
    return units;
}

template <typename Function>
void parallel_for(Index units, Index threads, Function function) {
    run_parallel(
        units, threads, [](void *context, Index unit, Index slot) { (*static_cast<Function *>(context))(unit, slot); },
        &function);
}

// [channels, states] to [block][state][lane], times log2(e); padding lanes are 0.
void pack_decay_rates(const float *A, Index channels, Index states, Index width, float *packed) {
    const Index blocks = (channels + width - 1) / width;
    for (Index block = 0; block < blocks; ++block)
        for (Index s = 0; s < states; ++s)
            for (Index lane = 0; lane < width; ++lane) {
                const Index channel = block * width + lane;
                const float rate = channel < channels ? A[channel * states + s] : 0.0f;
                packed[(block * states + s) * width + lane] = static_cast<float>(rate * 1.4426950408889634);
            }
}

// A first token has no state to decay. Only NaN in A must be seen there, too.
bool has_nan(const float *values, Index count) {
    for (Index i = 0; i < count; ++i)
        if (std::isnan(values[i])) return true;
    return false;
}

// Gradients of A and D from the groups' partial sums, which are block-major.
void add_groups(const Scan &scan, Index groups, Index width, Index threads, float *grad_A, float *grad_D) {
    const Index block_floats = scan.states * width, all = scan.blocks * block_floats;
    parallel_for(scan.blocks, threads, [&](Index block, Index) {
        std::vector<double> sums(static_cast<std::size_t>(block_floats + width), 0.0);
        for (Index g = 0; g < groups; ++g) {
            const float *const of_A = scan.grad_A + g * all + block * block_floats;
            const float *const of_D = scan.grad_D + (g * scan.blocks + block) * width;
            for (Index i = 0; i < block_floats; ++i) sums[i] += of_A[i];
            for (Index i = 0; i < width; ++i) sums[block_floats + i] += of_D[i];
        }
        for (Index lane = 0; lane < width && block * width + lane < scan.channels; ++lane) {
            const Index channel = block * width + lane;
            for (Index s = 0; s < scan.states; ++s)
                grad_A[channel * scan.states + s] = static_cast<float>(sums[s * width + lane]);
            grad_D[channel] = static_cast<float>(sums[block_floats + lane]);
        }
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

// What the forward and the backward pass have in common.
Scan describe(const float *x, Index x_stride, const float *dt, Index dt_stride, const float *B, Index B_stride,
              const float *C, Index C_stride, const float *D, const std::int32_t *cu_seqlens,
              const float *initial_state, Index tokens, Index channels, Index states, Index blocks, bool read_last) {
    Scan scan{};
    scan.x = x, scan.x_stride = x_stride, scan.dt = dt, scan.dt_stride = dt_stride;
    scan.B = B, scan.B_stride = B_stride, scan.C = C, scan.C_stride = C_stride;
    scan.D = D, scan.cu_seqlens = cu_seqlens, scan.initial_state = initial_state;
    scan.tokens = tokens, scan.channels = channels, scan.states = states, scan.blocks = blocks;
    scan.read_last = read_last;
    return scan;
}

Index usable_threads(int threads) { return std::max(1, std::min(threads, 1024)); }

}  // namespace

// All functions: float32, the last dimension contiguous, strides of rows in elements; 0 on success.

// Raised whenever a function changes, so that a library left over from an older build is noticed.
M3REC_EXPORT int m3rec_interface() { return 2; }

// The program's GOMP_parallel, whose threads do the work from now on; null for threads of the library's own.
M3REC_EXPORT void m3rec_use_openmp(void *entry) { use_openmp(entry); }

M3REC_EXPORT const char *m3rec_kernels(int set) {
    const Kernels *const kernels = find_kernels(set);
    return kernels ? kernels->name : nullptr;
}

M3REC_EXPORT int m3rec_scan_forward(const float *x, Index x_stride, const float *dt, Index dt_stride, const float *A,
                                    const float *B, Index B_stride, const float *C, Index C_stride, const float *D,
                                    const std::int32_t *cu_seqlens, const float *initial_state, Index sequences,
                                    Index tokens, Index channels, Index states, int read_last, float *y,
                                    float *last_state, int threads, int set) try {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    if (!sequences_are_sound(cu_seqlens, sequences, tokens)) return kBadSequences;
    const Index blocks = (channels + kernels->width - 1) / kernels->width;
    const Memory packed(blocks * states * kernels->width);
    pack_decay_rates(A, channels, states, kernels->width, packed.get());

    Scan scan = describe(x, x_stride, dt, dt_stride, B, B_stride, C, C_stride, D, cu_seqlens, initial_state, tokens, channels,
                         states, blocks, read_last != 0);
    scan.A = packed.get(), scan.decay_first = has_nan(A, channels * states);
    scan.y = y, scan.last_state = last_state;

    const std::vector<Unit> groups = make_groups(cu_seqlens, sequences, tokens, blocks);
    const Index panels = count_panels(groups, scan, kEnoughUnits, kMostPanels);
    const std::vector<Unit> units = make_units(groups, panels, blocks, cu_seqlens);
    const Index workers = std::min<Index>(usable_threads(threads), static_cast<Index>(units.size()));
    const Index floats = round_to_line(kernels->forward_scratch(scan));
    const Memory scratch(workers * floats);
    parallel_for(static_cast<Index>(units.size()), workers,
                 [&](Index unit, Index slot) { kernels->forward(scan, units[unit], scratch.get() + slot * floats); });
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

M3REC_EXPORT int m3rec_scan_backward(const float *grad_y, Index grad_y_stride, const float *x, Index x_stride,
                                     const float *dt, Index dt_stride, const float *A, const float *B, Index B_stride,
                                     const float *C, Index C_stride, const float *D, const std::int32_t *cu_seqlens,
                                     const float *initial_state, Index sequences, Index tokens, Index channels,
                                     Index states, int read_last, float *grad_x, float *grad_dt, float *grad_A,
                                     float *grad_B, float *grad_C, float *grad_D, int threads, int set) try {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    if (!sequences_are_sound(cu_seqlens, sequences, tokens)) return kBadSequences;
    const Index width = kernels->width, blocks = (channels + width - 1) / width;
    const Memory packed(blocks * states * width);
    pack_decay_rates(A, channels, states, width, packed.get());
    Scan scan = describe(x, x_stride, dt, dt_stride, B, B_stride, C, C_stride, D, cu_seqlens, initial_state, tokens, channels,
                         states, blocks, read_last != 0);
    scan.A = packed.get(), scan.decay_first = has_nan(A, channels * states);

    const std::vector<Unit> groups = make_groups(cu_seqlens, sequences, tokens, blocks);
    const Index panels = count_panels(groups, scan, kEnoughBackwardUnits, kMostBackwardPanels), rows = tokens * states;
    const std::vector<Unit> units = make_units(groups, panels, blocks, cu_seqlens);
    const Index n_groups = static_cast<Index>(groups.size());
    const Memory partial_A(n_groups * blocks * states * width), partial_D(n_groups * blocks * width);
    const Memory partial_B(panels > 1 ? panels * rows : 0), partial_C(panels > 1 ? panels * rows : 0);
    scan.grad_y = grad_y, scan.grad_y_stride = grad_y_stride, scan.grad_x = grad_x, scan.grad_dt = grad_dt;
    scan.grad_B = panels > 1 ? partial_B.get() : grad_B, scan.grad_C = panels > 1 ? partial_C.get() : grad_C;
    scan.grad_A = partial_A.get(), scan.grad_D = partial_D.get();

    Index longest = 0;
    for (const Unit &group : groups) longest = std::max(longest, group.longest);
    const Index workers = std::min<Index>(usable_threads(threads), static_cast<Index>(units.size()));
    const Index floats = round_to_line(kernels->backward_scratch(scan, longest));
    const Memory scratch(workers * floats);
    parallel_for(static_cast<Index>(units.size()), workers,
                 [&](Index unit, Index slot) { kernels->backward(scan, units[unit], scratch.get() + slot * floats); });
    add_groups(scan, n_groups, width, workers, grad_A, grad_D);
    if (panels > 1) {
        add_panels(partial_B.get(), panels, rows, workers, grad_B);
        add_panels(partial_C.get(), panels, rows, workers, grad_C);
    }
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

M3REC_EXPORT int m3rec_scan_step(const float *x, Index x_stride, const float *dt, Index dt_stride, const float *A,
                                 const float *B, Index B_stride, const float *C, Index C_stride, const float *D,
                                 float *state, Index rows, Index channels, Index states, float *y, int threads, int set) {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    const Step call{x, dt, A, B, C, D, state, y, x_stride, dt_stride, B_stride, C_stride, channels, states};
    const Index piece = std::max<Index>(1, (1 << 16) / (channels * states));  // rows worth a unit
    parallel_for((rows + piece - 1) / piece, usable_threads(threads), [&](Index unit, Index) {
        kernels->step(call, unit * piece, std::min(rows, (unit + 1) * piece));
    });
    return kDone;
}

}  // namespace m3rec
