// The C interface of softmax and its loss.
#include "dispatch.h"

namespace m3rec {

// losses [rows] = -log softmax(logits)[target] for rows of `columns` values, at least one, float32
// or, if `half`, bfloat16. If `wants_gradient`, the logits become the gradients of the losses.
M3REC_EXPORT int m3rec_softmax_loss(void *logits, int half, const std::int64_t *targets, Index rows,
                                    Index columns, int wants_gradient, float *losses, int threads,
                                    int set) {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    for (Index row = 0; row < rows; ++row)
        if (targets[row] < 0 || targets[row] >= columns) return kBadTarget;
    const Softmax call{logits, half != 0, wants_gradient != 0, targets, columns, losses};
    parallel_for(rows, usable_threads(threads),
                 [&](Index unit, Index) { kernels->softmax(call, unit, unit + 1); });
    return kDone;
}

}  // namespace m3rec
