// The C interface of a search for the best rows of a table, by way of the table in bytes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "dispatch.h"

namespace m3rec {

// A table of real numbers and the same rounded: row r has about bytes[r, i] unit[i].
struct ByteTable {
    const std::int8_t *bytes;  // [rows, depth]
    const float *unit;         // [depth]
    const void *exact;         // [rows, depth], of 16 or 32 bits a number
    Index rows, depth;
    double error;   // the largest length of a row's rounding errors, in units
    double length;  // the largest length of a rounded row, in units
    int is_half;    // whether the exact table is of 16 bits
};

// Pairs of query and row, with a value each or none.
struct Pairs {
    const std::int64_t *queries, *rows;
    const float *values;
    Index count;
};

namespace {

constexpr double kSlack = 1.01;  // of the bound, for the rounding of the scores
// So that what underflows in a scaled query is small beside its rounding.
constexpr double kSmallestStep = 1e-30;
// Products that take about as long as it takes to wake a thread, 0.1 ms.
constexpr Index kProductsOfThread = Index{1} << 23;

// A query in whole numbers of `step`, and by how much its products are off at most.
struct Rounded {
    double step, bound;
};

Rounded round_query(const ByteTable &table, const float *query, std::int16_t *whole) {
    const Index depth = table.depth;
    double largest = 0, squares = 0, rest = 0;
    for (Index i = 0; i < depth; ++i) {
        const double scaled = double{query[i]} * table.unit[i];
        largest = std::max(largest, std::fabs(scaled));
        squares += scaled * scaled;
    }
    // No product of a row and a query goes beyond 32 bits.
    const Index most = std::min<Index>(32767, 2147483647 / (127 * depth));
    const double step = largest / static_cast<double>(most);
    if (!std::isfinite(squares) || !(step > kSmallestStep)) {
        std::fill(whole, whole + depth, std::int16_t{0});
        return {1, std::numeric_limits<double>::infinity()};
    }
    for (Index i = 0; i < depth; ++i) {
        const double scaled = double{query[i]} * table.unit[i] / step, near = std::rint(scaled);
        whole[i] = static_cast<std::int16_t>(near);
        rest += (scaled - near) * (scaled - near);
    }
    const double size = std::sqrt(squares) / step;
    // Where rounding to whole numbers loses nothing, that of float32 is left.
    const double of_floats =
        static_cast<double>(depth) * std::numeric_limits<float>::epsilon() * table.length;
    return {step, (table.error + of_floats) * size + table.length * std::sqrt(rest)};
}

// Without subnormal numbers of 32 bits, which torch may have the processor take for 0.
float of_half(std::uint16_t half) {
    const std::uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    float value = static_cast<float>(fraction) * 0x1p-24f;
    if (exponent != 0) {
        const std::uint32_t bits = (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
        std::memcpy(&value, &bits, sizeof value);
    }
    return half >> 15 ? -value : value;
}

// The exact score of a row.
double score(const ByteTable &table, Index row, const float *query) {
    double sum = 0;
    const Index start = row * table.depth;
    if (table.is_half) {
        const auto *const numbers = static_cast<const std::uint16_t *>(table.exact) + start;
        for (Index i = 0; i < table.depth; ++i) sum += double{of_half(numbers[i])} * query[i];
    } else {
        const auto *const numbers = static_cast<const float *>(table.exact) + start;
        for (Index i = 0; i < table.depth; ++i) sum += double{numbers[i]} * query[i];
    }
    return sum;
}

struct Scored {
    Index row;
    float score;
};

// Chooses the best of the candidates of a query, and tells whether they are the best of all.
class Choice {
public:
    Choice(const ByteTable &table, const float *query, Rounded rounded,
           const std::uint64_t *unwanted)
        : table_(table), query_(query), rounded_(rounded), unwanted_(unwanted) {}

    // Takes the rows of some pieces that may be among the k best; no other has a larger product than
    // the first that is left out.
    void take(const BestProducts *of_pieces, Index pieces, Index stride, Index kept, Index k) {
        std::vector<Product> best;
        for (Index piece = 0; piece < pieces; ++piece) {
            const BestProducts &some = of_pieces[piece * stride];
            best.insert(best.end(), some.products, some.products + some.count);
        }
        std::sort(best.begin(), best.end(), [](Product a, Product b) {
            return a.value > b.value || (a.value == b.value && a.row < b.row);
        });
        for (Index i = 0; i < static_cast<Index>(best.size()); ++i) {
            const double value = best[i].value;
            if (i == kept - 1 || (i >= k && value + 2 * bound() < best[k - 1].value)) {
                left_out_ = value;
                break;
            }
            rows_.push_back({best[i].row, 0});
        }
    }

    // Adds a value to the score of a row.
    void add(Index row, float value) {
        if (unwanted_[row / 64] >> (row % 64) & 1) return;
        rows_.push_back({row, value});
    }

    // Writes the k best, of equal ones the lower row, and 0 with -inf where there are no more.
    bool best(Index k, std::int64_t *rows, float *scores) {
        std::fill(rows, rows + k, 0);
        std::fill(scores, scores + k, -HUGE_VALF);
        if (!std::isfinite(rounded_.bound)) return false;
        std::stable_sort(rows_.begin(), rows_.end(),
                         [](Scored a, Scored b) { return a.row < b.row; });
        Index found = 0;
        for (std::size_t i = 0; i < rows_.size();) {
            const Index row = rows_[i].row;
            float added = 0;
            for (; i < rows_.size() && rows_[i].row == row; ++i) added += rows_[i].score;
            rows_[found] = {row, static_cast<float>(score(table_, row, query_)) + added};
            if (!std::isfinite(rows_[found++].score)) return false;
        }
        rows_.resize(found);
        const Index given = std::min(k, found);
        std::partial_sort(rows_.begin(), rows_.begin() + given, rows_.end(),
                          [](Scored a, Scored b) {
                              return a.score > b.score || (a.score == b.score && a.row < b.row);
                          });
        for (Index i = 0; i < given; ++i) {
            rows[i] = rows_[i].row;
            scores[i] = rows_[i].score;
        }
        return scores[k - 1] > (left_out_ + bound()) * rounded_.step;
    }

private:
    double bound() const { return kSlack * rounded_.bound; }

    const ByteTable &table_;
    const float *query_;
    Rounded rounded_;
    const std::uint64_t *unwanted_;
    std::vector<Scored> rows_;
    double left_out_ = -HUGE_VAL;
};

}  // namespace

// Of each query the k rows whose scores are best, and 1 where it is sure that they are: `count`
// rows whose rounded scores are best are scored exactly, and those that something is added to. Row
// 0 and the pairs that are removed are left out.
M3REC_EXPORT int m3rec_byte_best(const ByteTable *table, const float *queries, Index query_count,
                                 const Pairs *removed, const Pairs *added, Index count, Index k,
                                 std::int64_t *rows, float *scores, std::uint8_t *is_sure,
                                 int threads, int set) try {
    const Kernels *const kernels = find_kernels(set);
    if (kernels == nullptr) return kNoSuchKernels;
    for (const Pairs *pairs : {removed, added})
        for (Index i = 0; i < pairs->count; ++i)
            if (pairs->queries[i] < 0 || pairs->queries[i] >= query_count || pairs->rows[i] < 0 ||
                pairs->rows[i] >= table->rows)
                return kNoSuchPair;
    const Index depth = table->depth, words = table->rows / 64 + 1, kept = count + 1;
    std::vector<std::int16_t> whole(query_count * depth);
    std::vector<Rounded> rounded(query_count);
    std::vector<std::uint64_t> unwanted(query_count * words);
    for (Index query = 0; query < query_count; ++query) {
        rounded[query] = round_query(*table, queries + query * depth, whole.data() + query * depth);
        unwanted[query * words] = 1;
    }
    for (Index i = 0; i < removed->count; ++i)
        unwanted[removed->queries[i] * words + removed->rows[i] / 64] |=
            std::uint64_t{1} << (removed->rows[i] % 64);
    const Index paying = 1 + table->rows * depth * query_count / kProductsOfThread;
    const Index pieces = std::min(usable_threads(threads), paying);
    const Index height = (table->rows + pieces - 1) / pieces;
    std::vector<Product> products(pieces * query_count * 2 * kept);
    std::vector<BestProducts> best(pieces * query_count);
    for (std::size_t i = 0; i < best.size(); ++i)
        best[i] = {products.data() + i * 2 * kept, 0, std::numeric_limits<std::int32_t>::min()};
    const ByteSearch call{table->bytes, whole.data(), unwanted.data(), depth,
                          query_count,  words,        kept};
    parallel_for(pieces, pieces > 1 ? usable_threads(threads) : 1, [&](Index piece, Index) {
        kernels->search_bytes(call, piece * height, std::min(table->rows, (piece + 1) * height),
                              best.data() + piece * query_count);
    });
    std::vector<Choice> choices;
    for (Index query = 0; query < query_count; ++query) {
        choices.emplace_back(*table, queries + query * depth, rounded[query],
                             &unwanted[query * words]);
        choices.back().take(&best[query], pieces, query_count, kept, k);
    }
    for (Index i = 0; i < added->count; ++i)
        choices[added->queries[i]].add(added->rows[i], added->values[i]);
    for (Index query = 0; query < query_count; ++query)
        is_sure[query] = choices[query].best(k, rows + query * k, scores + query * k);
    return kDone;
} catch (const std::bad_alloc &) {
    return kNoMemory;
} catch (const std::length_error &) {
    return kNoMemory;
}

}  // namespace m3rec
