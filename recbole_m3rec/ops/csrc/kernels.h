// What the dispatcher and the kernels agree on. Plain data only: every kernel file is compiled for
// another instruction set, so nothing here may be an inline function that the linker could merge.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && !defined(M3REC_GENERIC_ONLY)
#define M3REC_X86
#endif

namespace m3rec {

using Index = std::ptrdiff_t;

// Tokens whose operands a kernel holds in its scratch memory at a time. The backward pass holds the
// decays and states of a chunk as well, and must stay in the first-level cache with them.
constexpr Index kForwardChunk = 48;
constexpr Index kBackwardChunk = 28;

// One call of the scan. Channels are cut into blocks of one vector, the last one padded;
// "block-major" means [block][state][lane].
struct Scan {
    const float *x, *dt, *B, *C,
        *D;  // [tokens, channels] twice, [tokens, states] twice, [channels]
    Index x_stride, dt_stride, B_stride, C_stride;
    const float *dt_bias;  // [channels] or null: softplus(dt + dt_bias) is the step size, else dt
    const float *z;        // like y, or null: y is multiplied by SiLU(z)
    Index z_stride;
    const float *A;                  // block-major, multiplied by log2(e)
    const float *initial_state;      // [sequences, channels, states] or null: zeros
    const std::int32_t *cu_seqlens;  // [sequences + 1]
    Index channels, states, blocks;
    bool last_only;    // y (and its gradient) has a row for each last token only
    bool decay_first;  // false: a first token has no state, so no decay is computed

    float *y;           // [tokens or sequences, channels]
    float *last_state;  // [sequences, channels, states] or null

    // Backward only. Partial sums are made over fixed pieces of the problem and added in a fixed
    // order later, so that results depend neither on the number of threads nor on who came first.
    const float *grad_y;
    Index grad_y_stride;
    float *grad_x, *grad_dt;       // [tokens, channels]
    float *grad_B, *grad_C;        // [panels][tokens, states]
    float *grad_A;                 // [groups], each block-major; still to be divided by log2(e)
    float *grad_D, *grad_dt_bias;  // [groups][block][lane]
    float *grad_z;                 // like y
    Index tokens;
};

// A piece of work: some consecutive sequences, some consecutive channel blocks.
struct Unit {
    Index first_sequence, last_sequence;  // half open
    Index first_block, last_block;        // half open
    Index group, panel;                   // which partial sums it owns
    Index longest;                        // tokens of its longest sequence
};

struct Step {
    const float *x, *dt, *A, *B, *C, *D;  // A [channels, states], not multiplied by anything
    const float *dt_bias, *z;             // as for Scan
    float *state, *y;                     // [rows, channels, states], [rows, channels]
    Index x_stride, dt_stride, B_stride, C_stride, z_stride;
    Index channels, states;
};

// A Mamba block's weights as PyTorch keeps them, [out, in]; A [channels, states]; in_proj's first
// half makes what is scanned, its second the gate.
struct BlockWeights {
    const float *in_proj, *tap, *tap_bias, *x_proj, *dt_proj, *dt_bias, *A, *D, *out_proj;
};

// A Mamba block on one token.
struct BlockStep {
    BlockWeights weights;
    const float *h;       // [width]
    const float *window;  // [channels, taps - 1], oldest input first
    Index width, channels, states, rank, taps;
    float *new_window;  // like window
    float *state;       // [channels, states], replaced
    float *y;           // [width]
};

struct NormWeights {
    const float *weight, *bias;
};

// What a modality goes through in a layer: a block, its norm, an expert, its norm.
struct LayerWeights {
    BlockWeights block;
    NormWeights norm;
    const float *inner, *inner_bias, *outer, *outer_bias;  // [inner, width], [width, inner]
    NormWeights expert_norm;
    const float *slow, *keep;  // of the low-pass filter [width], null without one
};

// A network for one token; the library is given it as it is here.
struct Network {
    const NormWeights *input_norms;  // [modalities]
    const LayerWeights *layers;      // [layers, modalities]
    Index layer_count, modalities, width, inner, channels, states, rank, taps;
    Index low_pass;  // newest inputs that the filter sees, 0 for none
    int has_residual;
    float eps;
};

struct NetworkStep {
    const float *x;       // [modalities, width]
    const float *window;  // [layers, modalities, channels, taps - 1]
    float *new_window;    // like window
    float *state;         // [layers, modalities, channels, states], replaced
    const float *recent;  // [layers, modalities, low_pass - 1, width + 1], oldest input first
    float *new_recent;    // like recent
    float *y;             // [modalities, width]
};

// The causal convolution of width `taps` in front of the scan, with SiLU behind it.
struct Convolution {
    const float *x;  // [tokens, channels]
    Index x_stride;
    const float *weight, *bias;      // [lag][padded channels], [padded channels]
    const std::int32_t *cu_seqlens;  // [sequences + 1]
    Index sequences, channels, blocks, taps;
    float *y;  // [tokens, channels]
    const float *grad_y;
    Index grad_y_stride;
    float *grad_x;       // [tokens, channels]
    float *grad_weight;  // [units][lag, then bias][padded channels]
};

// Which elements a dropout keeps, and by what it multiplies these; random_bits.h.
struct Mask {
    std::uint64_t seed;
    std::uint32_t threshold;  // 65536 times the probability of being kept
    float scale;              // 65536 / threshold, or 0
};

struct Dropout {
    Mask mask;
    const float *x;
    float *y;
};

// y = x right + bias, and the sums over rows that its backward pass needs.
struct Matmul {
    const float *x;  // [rows, depth]
    Index x_stride;
    const float *right;  // [depth, columns] in panels, padded
    const float *bias;   // [padded columns] or null
    Index depth, columns;
    float *y;  // [rows, columns]; read in the backward pass
};

// A row of a table and its product with a query.
struct Product {
    std::int32_t value, row;
};

// A search for the rows of a table whose products with a query are largest, in whole numbers.
struct ByteSearch {
    const std::int8_t *table;       // [rows, depth]
    const std::int16_t *queries;    // [query_count, depth]
    const std::uint64_t *unwanted;  // [query_count, words], a bit for each row
    Index depth, query_count, words, kept;
};

// The products of a query that may be among its `kept` best, in no order.
struct BestProducts {
    Product *products;  // room for twice as many as are kept
    Index count;
    std::int32_t beaten;  // only what is larger may be among them
};

// The kernels of one instruction set.
struct Kernels {
    const char *name;
    Index width;                                             // lanes of a vector
    Index (*forward_scratch)(const Scan &);                  // floats
    Index (*backward_scratch)(const Scan &, Index longest);  // floats
    void (*forward)(const Scan &, const Unit &, float *scratch);
    void (*backward)(const Scan &, const Unit &, float *scratch);
    void (*step)(const Step &, Index first_row, Index last_row);
    Index (*network_step_scratch)(const Network &);  // floats
    void (*network_step)(const Network &, const NetworkStep &, Index modality, float *scratch);
    void (*convolve)(const Convolution &, Index first_token, Index last_token);
    void (*convolve_back)(const Convolution &, Index unit, Index first_token, Index last_token,
                          float *scratch);
    void (*drop)(const Dropout &, Index first_element, Index last_element);
    Index panel;  // columns of a panel of Matmul
    void (*matmul)(const Matmul &, Index first_row, Index last_row);
    void (*matmul_back)(const Matmul &, Index first_row, Index last_row, float *sums);
    void (*search_bytes)(const ByteSearch &, Index first_row, Index last_row, BestProducts *best);
};

extern const Kernels kGenericKernels;
#ifdef M3REC_X86
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace m3rec
