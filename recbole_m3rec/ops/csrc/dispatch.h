// What the C interfaces share: choice of kernels, memory, threads, checks. Compiled for any
// machine.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#include "parallel.h"

#define M3REC_EXPORT extern "C" __attribute__((visibility("default")))

namespace m3rec {

enum Status {
    kDone = 0,
    kBadSequences = 1,
    kNoMemory = 2,
    kNoSuchKernels = 3,
    kNoSuchPair = 4
};

// Instruction sets by number: 0 any machine, 1 AVX2, 2 AVX-512; -1 the best that runs here. Null if
// absent.
const Kernels *find_kernels(int set);

// Whether cu_seqlens runs from 0 to `tokens` with every sequence at least one token long.
bool sequences_are_sound(const std::int32_t *cu_seqlens, Index sequences, Index tokens);

inline Index usable_threads(int threads) {
    return threads < 1 ? 1 : threads > 1024 ? 1024 : threads;
}

inline Mask make_mask(std::uint64_t seed, int keep) {
    return {seed, static_cast<std::uint32_t>(keep), keep > 0 ? 65536.0f / keep : 0.0f};
}

// Floats that start on a cache line, so that no two threads share one where each has a multiple of
// a line.
class Memory {
public:
    explicit Memory(Index floats) {
        if (posix_memalign(&data_, 64,
                           sizeof(float) * static_cast<std::size_t>(floats > 0 ? floats : 1)) != 0)
            throw std::bad_alloc();
    }
    ~Memory() { std::free(data_); }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    float *get() const { return static_cast<float *>(data_); }

private:
    void *data_ = nullptr;
};

inline Index round_to_line(Index floats) { return (floats + 15) / 16 * 16; }

template <typename Function>
void parallel_for(Index units, Index threads, Function function) {
    run_parallel(
        units, threads,
        [](void *context, Index unit, Index slot) {
            (*static_cast<Function *>(context))(unit, slot);
        },
        &function);
}

}  // namespace m3rec
