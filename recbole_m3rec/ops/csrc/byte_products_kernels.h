// Products of a table of bytes and a query of 16-bit numbers: whole numbers, so exact in any order.
#pragma once

#include "kernels.h"

namespace m3rec {
namespace {

// y[row] for some rows of the table, a plain loop that compilers turn into products of pairs.
static void byte_products(const ByteProducts &call, Index first, Index last) {
    for (Index row = first; row < last; ++row) {
        const std::int8_t *const bytes = call.table + row * call.depth;
        std::int32_t sum = 0;
        for (Index i = 0; i < call.depth; ++i) sum += std::int32_t{bytes[i]} * call.query[i];
        call.y[row] = sum;
    }
}

}  // namespace
}  // namespace m3rec
