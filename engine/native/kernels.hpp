// The loops that touch words, one table of them for each instruction set. Everything else is compiled once, for any
// machine. Kernels are templates over a vector of words V (vector_*.hpp), instantiated with each set's own compiler
// flags (kernels_*.cpp); a kernel may assume that the floating-point mode is the one of float_mode.hpp.
#pragma once

#include <cstdint>

namespace crowdtrain {

// Rows of words that a pass reads: word i of row r is words[r * row + i], or words[r * row] for all i if they are the `same`.
struct Source {
    const uint32_t* words;
    int64_t row;
    bool same;
};

// One operation of a body over `rows` rows of `count` words: out[r * count + i] = op(word i of row r of in[0], in[1] …).
// `out` may be what one of the operands reads.
using Pass = void (*)(uint32_t* out, const Source* in, int64_t rows, int64_t count);

// Steps of a fold with the accumulators in registers: for f ascending, acc[i] = step(acc[i], x[f * x_row + i], y[...]).
using FoldPass = void (*)(uint32_t* acc, const uint32_t* x, int64_t x_row, const uint32_t* y, int64_t y_row,
                          int64_t folds, int64_t count);

// The same where each accumulator's operands lie along the fold: for f ascending, acc[i] = step(acc[i], x[i][f], y[i][f]),
// for at most 2 * lanes accumulators. `y` is read by steps with two operands.
using FoldRows = void (*)(uint32_t* acc, const uint32_t* const* x, const uint32_t* const* y, int64_t folds, int64_t count);

enum class FoldStep : uint8_t {
    sum,           // acc + x
    multiply_add,  // fma(x, y, acc)
    max,           // acc < x ? x : acc
    max_or_new,    // x < acc ? acc : x
    min,           // x < acc ? x : acc
    min_or_new,    // acc < x ? acc : x
    count
};

constexpr int kMaxTileRows = 14, kMaxTileVectors = 2;

// One side of a product: for each row, or each vector of columns, where its words are for k = 0, 1 …
struct TileSide {
    // packed: k's words stand together, one for each row or column, at base[0] + k * (their number)
    // in place: those of row or vector i at base[i] + offsets[k]
    const uint32_t* base[kMaxTileRows];
    const int32_t* offsets;
};

// c[i][j] = fma over k ascending of rows[i][k] * columns[k][j], on from c itself or, if `fresh`, from the word `init`.
// Rows of c are whole vectors, `c_row` words apart.
using TilePass = void (*)(int64_t depth, const TileSide& rows, const TileSide& columns, uint32_t* c, int64_t c_row,
                          bool fresh, uint32_t init);

// Where the words of a vector that is read irregularly are: each within as many words as a vector has from one of these
// offsets on. If they are too far apart, the first is negative.
struct Windows {
    static constexpr int kMost = 4;
    int32_t at[kMost];
};

struct Kernels {
    const char* name;
    int lanes;
    int tile_rows, tile_vectors;  // of the largest tile
    Pass pass[256];               // by opcode; null where there is none
    Pass copy;
    FoldPass fold[static_cast<int>(FoldStep::count)];
    FoldRows fold_rows[static_cast<int>(FoldStep::count)];
    TilePass tile[2][2][kMaxTileRows][kMaxTileVectors];  // [rows in place][columns in place][rows - 1][vectors - 1]

    void (*fill)(uint32_t* out, uint32_t word, int64_t count);
    void (*iota)(uint32_t* out, uint32_t first, uint32_t step, int64_t count);
    void (*copy_strided)(uint32_t* out, int64_t out_stride, const uint32_t* in, int64_t in_stride, int64_t count);
    // `rows` rows of `count` words, one after another in `out`
    void (*copy_rows)(uint32_t* out, const uint32_t* in, int64_t in_row, int64_t rows, int64_t in_stride, int64_t count);
    // out[i] = in[offsets[i]], or `word` where the offset is negative
    void (*gather)(uint32_t* out, const uint32_t* in, const int32_t* offsets, uint32_t word, int64_t count);
    // The same for whole vectors, by the first `used` of the windows of each.
    void (*pick)(uint32_t* out, const uint32_t* in, const int32_t* offsets, const Windows* windows, int used, uint32_t word,
                 int64_t vectors);
    // out[c * out_row + r] = rows[r][c]
    void (*transpose)(uint32_t* out, int64_t out_row, const uint32_t* const* rows, int64_t row_count, int64_t columns);
    // The same with out_row = row_count <= lanes; up to `lanes` more words of `out` are overwritten.
    void (*transpose_panel)(uint32_t* out, const uint32_t* const* rows, int64_t row_count, int64_t columns);
    // out[offsets[c] + r] = in[r * in_row + c], for at most `tile_rows` rows of whole vectors
    void (*transpose_out)(uint32_t* out, const int32_t* offsets, const uint32_t* in, int64_t in_row, int64_t rows,
                          int64_t columns);
    // Copies `panels` groups of tile rows, or of whole tile columns, of each of `depth` lines to panels: out[p * panel + k *
    // width + i] = in[k * in_step + p * width + i]. Up to `lanes` more words of each panel are overwritten.
    void (*spread_rows)(uint32_t* out, int64_t panel, const uint32_t* in, int64_t in_step, int64_t depth, int64_t panels);
    void (*spread_columns)(uint32_t* out, int64_t panel, const uint32_t* in, int64_t in_step, int64_t depth, int64_t panels);
};

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#elif defined(__aarch64__)
extern const Kernels kNeonKernels;
#endif

}  // namespace crowdtrain
