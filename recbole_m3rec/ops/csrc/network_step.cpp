// The C interface of a network's step.
#include <algorithm>

#include "dispatch.h"

namespace m3rec {

// Products from which on it pays to wake threads: they take some 0.1 ms.
constexpr Index kFewProducts = Index{1} << 22;

// One token of each modality: y, the windows after it, and the states, which are replaced; shapes
// as in NetworkStep.
M3REC_EXPORT int m3rec_network_step(const Network *network, const float *x, const float *window,
                                    float *new_window, float *state, const float *recent,
                                    float *new_recent, float *y, int threads, int set) try {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    const NetworkStep call{x, window, new_window, state, recent, new_recent, y};
    const Index products = network->layer_count * network->modalities * network->width *
                           (3 * network->channels + 2 * network->inner);
    const Index team = products > kFewProducts ? usable_threads(threads) : 1;
    const Index slots = std::min(team, network->modalities);
    const Index scratch = round_to_line(kernels->network_step_scratch(*network));
    const Memory memory(slots * scratch);
    parallel_for(network->modalities, team, [&](Index modality, Index slot) {
        kernels->network_step(*network, call, modality, memory.get() + slot * scratch);
    });
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

}  // namespace m3rec
