// The C interface of a Mamba block's step.
#include <algorithm>

#include "dispatch.h"

namespace m3rec {

// The arguments of a call; cpu_library.py has the same structure. float32, all contiguous.
struct BlockStepArguments {
    const float *h, *in_proj, *tap, *tap_bias, *x_proj, *dt_proj, *dt_bias, *A_log, *D, *out_proj;
    const float *window;
    Index rows, width, channels, states, rank, taps;
    int threads, instruction_set;
};

// One token per row: y [rows, width], the windows after it, and state [rows, channels, states],
// which is replaced.
M3REC_EXPORT int m3rec_block_step(const BlockStepArguments *arguments, float *new_window,
                                  float *state, float *y) try {
    const Kernels *const kernels = find_kernels(arguments->instruction_set);
    if (kernels == nullptr) return kNoSuchKernels;
    const Index decays = round_to_line(arguments->channels * arguments->states);
    BlockStep call{};
    call.weights = {arguments->in_proj, arguments->tap,     arguments->tap_bias,
                    arguments->x_proj,  arguments->dt_proj, arguments->dt_bias,
                    nullptr,            arguments->D,       arguments->out_proj};
    call.h = arguments->h, call.window = arguments->window;
    call.width = arguments->width, call.channels = arguments->channels,
    call.states = arguments->states, call.rank = arguments->rank, call.taps = arguments->taps;
    call.new_window = new_window, call.state = state, call.y = y;

    const Index threads = std::min(usable_threads(arguments->threads), arguments->rows);
    const Index scratch = round_to_line(kernels->block_step_scratch(call));
    const Memory memory(decays + threads * scratch);
    kernels->decay_rates(arguments->A_log, arguments->channels * arguments->states, memory.get());
    call.weights.A = memory.get();
    parallel_for(arguments->rows, threads, [&](Index row, Index slot) {
        kernels->block_step(call, row, memory.get() + decays + slot * scratch);
    });
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
}

}  // namespace m3rec
