// The kernels, over any vector of words V. Included by one source file for each instruction set.
//
// Everything here is a template over V, and each V has its own namespace, so that no function compiled for one set can
// be linked into another. For the same reason nothing is taken from the standard library but memcpy.
#pragma once

#include <cstdint>
#include <cstring>

#include "derived.hpp"
#include "generated.hpp"
#include "kernels.hpp"

// Before loops over registers: an array of vectors that is indexed by a variable would live in memory.
#define CROWDTRAIN_UNROLL _Pragma("GCC unroll 32")

namespace crowdtrain {

template <class V>
inline V load_some(const uint32_t* at, int64_t count) {
    uint32_t words[V::kLanes] = {};
    std::memcpy(words, at, sizeof(uint32_t) * static_cast<size_t>(count));
    return load(V{}, words);
}

template <class V>
inline void store_some(uint32_t* at, V v, int64_t count) {
    uint32_t words[V::kLanes];
    store(words, v);
    std::memcpy(at, words, sizeof(uint32_t) * static_cast<size_t>(count));
}

// A row of a source. Where all words are the same, one vector of them is read again and again.
template <class V>
class Row {
public:
    Row(const Source& source, int64_t row) : mask_(source.same ? 0 : -1) {
        const uint32_t* const words = source.words + row * source.row;
        if (source.same) store(same_, splat(V{}, *words));
        at_ = source.same ? same_ : words;
    }
    Row(const Row&) = delete;  // it may point into itself
    Row& operator=(const Row&) = delete;

    V vector(int64_t i) const { return load(V{}, at_ + (i & mask_)); }
    V some(int64_t i, int64_t count) const { return load_some<V>(at_ + (i & mask_), count); }

private:
    uint32_t same_[V::kLanes];
    const uint32_t* at_;
    int64_t mask_;
};

// One row: its whole vectors, then the rest.
template <class V, class F, class... Rows>
inline void pass_row(uint32_t* out, int64_t count, const Rows&... in) {
    constexpr int n = V::kLanes;
    int64_t i = 0;
    for (; i + n <= count; i += n) store(out + i, F::of(in.vector(i)...));
    if (i < count) store_some(out + i, F::of(in.some(i, count - i)...), count - i);
}

template <class V, class F, int kOperands>
void pass(uint32_t* out, const Source* in, int64_t rows, int64_t count) {
    for (int64_t r = 0; r < rows; ++r, out += count) {
        const Row<V> a(in[0], r);
        if constexpr (kOperands == 1) {
            pass_row<V, F>(out, count, a);
        } else {
            const Row<V> b(in[1], r);
            if constexpr (kOperands == 2) {
                pass_row<V, F>(out, count, a, b);
            } else {
                const Row<V> c(in[2], r);
                pass_row<V, F>(out, count, a, b, c);
            }
        }
    }
}

// Steps of a fold. A NaN accumulator stays NaN under `sum` and `multiply_add` whatever its payload, so it is made
// canonical once, by `done`.
template <class V>
struct Sum {
    static constexpr bool kSecond = false;
    static V step(V acc, V x, V) { return fadd_raw(acc, x); }
    static V done(V acc) { return canonical(acc); }
};
template <class V>
struct MultiplyAdd {
    static constexpr bool kSecond = true;
    static V step(V acc, V x, V y) { return ffma_raw(x, y, acc); }
    static V done(V acc) { return canonical(acc); }
};
template <class V, bool kAccFirst, bool kTakeNew>
struct Choice {
    static constexpr bool kSecond = false;
    static V step(V acc, V x, V) {
        const V less = kAccFirst ? acc : x, than = kAccFirst ? x : acc;
        return kTakeNew ? select_flt(less, than, x, acc) : select_flt(less, than, acc, x);
    }
    static V done(V acc) { return acc; }
};

template <class V, class S, int kVectors>
inline void fold_block(uint32_t* acc, const uint32_t* x, int64_t x_row, const uint32_t* y, int64_t y_row, int64_t folds) {
    constexpr int n = V::kLanes;
    V a[kVectors];
    CROWDTRAIN_UNROLL
    for (int v = 0; v < kVectors; ++v) a[v] = load(V{}, acc + v * n);
    for (int64_t f = 0; f < folds; ++f) {
        CROWDTRAIN_UNROLL
        for (int v = 0; v < kVectors; ++v) {
            const V second = S::kSecond ? load(V{}, y + f * y_row + v * n) : V{};
            a[v] = S::step(a[v], load(V{}, x + f * x_row + v * n), second);
        }
    }
    CROWDTRAIN_UNROLL
    for (int v = 0; v < kVectors; ++v) store(acc + v * n, S::done(a[v]));
}

template <class V, class S>
void fold_pass(uint32_t* acc, const uint32_t* x, int64_t x_row, const uint32_t* y, int64_t y_row, int64_t folds,
               int64_t count) {
    constexpr int n = V::kLanes;
    int64_t i = 0;
    for (; i + 8 * n <= count; i += 8 * n) fold_block<V, S, 8>(acc + i, x + i, x_row, y + i, y_row, folds);
    for (; i + n <= count; i += n) fold_block<V, S, 1>(acc + i, x + i, x_row, y + i, y_row, folds);
    const int64_t rest = count - i;
    if (rest == 0) return;
    V a = load_some<V>(acc + i, rest);
    for (int64_t f = 0; f < folds; ++f) {
        const V second = S::kSecond ? load_some<V>(y + f * y_row + i, rest) : V{};
        a = S::step(a, load_some<V>(x + f * x_row + i, rest), second);
    }
    store_some(acc + i, S::done(a), rest);
}

// The transpose of a square of words, by log2(lanes) perfect shuffles.
template <class V>
inline void transpose_square(V (&a)[V::kLanes]) {
    constexpr int n = V::kLanes;
    CROWDTRAIN_UNROLL
    for (int step = 1; step < n; step *= 2) {
        V b[n];
        CROWDTRAIN_UNROLL
        for (int i = 0; i < n / 2; ++i) {
            b[2 * i] = zip_low(a[i], a[i + n / 2]);
            b[2 * i + 1] = zip_high(a[i], a[i + n / 2]);
        }
        CROWDTRAIN_UNROLL
        for (int i = 0; i < n; ++i) a[i] = b[i];
    }
}

// Four words of each of kLanes lines, transposed: word at + j of line i is in lane i of a[j].
template <class V>
inline void load_columns(V (&a)[4], const uint32_t* const* lines, int64_t at) {
    static_assert(V::kLanes == 4);
    CROWDTRAIN_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = load(V{}, lines[i] + at);
    transpose_square(a);
}

template <class V, class S>
void fold_rows(uint32_t* acc, const uint32_t* const* x, const uint32_t* const* y, int64_t folds, int64_t count) {
    constexpr int n = V::kLanes, kHalves = 2, kColumns = 4;  // two chains of steps, so that one need not wait for the other
    const uint32_t *xs[kHalves * n], *ys[kHalves * n];
    for (int i = 0; i < kHalves * n; ++i) {
        const int64_t row = i < count ? i : 0;
        xs[i] = x[row];
        ys[i] = S::kSecond ? y[row] : nullptr;
    }
    V a[kHalves] = {load_some<V>(acc, count < n ? count : n), V{}};
    if (count > n) a[1] = load_some<V>(acc + n, count - n);
    const auto steps = [&](int64_t at, int64_t some) {
        V p[kHalves][kColumns], q[kHalves][kColumns] = {};
        CROWDTRAIN_UNROLL
        for (int half = 0; half < kHalves; ++half) {
            load_columns(p[half], xs + half * n, at);
            if constexpr (S::kSecond) load_columns(q[half], ys + half * n, at);
            CROWDTRAIN_UNROLL
            for (int j = 0; j < kColumns; ++j) {
                if (j < some) a[half] = S::step(a[half], p[half][j], q[half][j]);
            }
        }
    };
    int64_t f = 0;
    for (; f + kColumns <= folds; f += kColumns) steps(f, kColumns);
    if (f < folds) {
        uint32_t rest[2][kHalves * n][kColumns] = {};
        for (int i = 0; i < kHalves * n; ++i) {
            for (int64_t j = 0; j < folds - f; ++j) {
                rest[0][i][j] = xs[i][f + j];
                if constexpr (S::kSecond) rest[1][i][j] = ys[i][f + j];
            }
            xs[i] = rest[0][i];
            ys[i] = rest[1][i];
        }
        steps(0, folds - f);
    }
    store_some(acc, S::done(a[0]), count < n ? count : n);
    if (count > n) store_some(acc + n, S::done(a[1]), count - n);
}

template <class V, bool kRowsInPlace, bool kColumnsInPlace, int kRows, int kVectors>
void tile_pass(int64_t depth, const TileSide& rows, const TileSide& columns, uint32_t* c, int64_t c_row, bool fresh,
               uint32_t init) {
    constexpr int n = V::kLanes;
    const uint32_t *row[kRows], *column[kVectors];
    CROWDTRAIN_UNROLL
    for (int i = 0; i < kRows; ++i) row[i] = kRowsInPlace ? rows.base[i] : rows.base[0] + i;
    CROWDTRAIN_UNROLL
    for (int j = 0; j < kVectors; ++j) column[j] = kColumnsInPlace ? columns.base[j] : columns.base[0] + j * n;
    V acc[kRows * kVectors];
    CROWDTRAIN_UNROLL
    for (int t = 0; t < kRows * kVectors; ++t) acc[t] = splat(V{}, init);
    if (!fresh) {
        CROWDTRAIN_UNROLL
        for (int t = 0; t < kRows * kVectors; ++t) acc[t] = load(V{}, c + t / kVectors * c_row + t % kVectors * n);
    }
    for (int64_t k = 0; k < depth; ++k) {
        const int64_t row_at = kRowsInPlace ? rows.offsets[k] : k * kRows;
        const int64_t column_at = kColumnsInPlace ? columns.offsets[k] : k * kVectors * n;
        V y[kVectors];
        CROWDTRAIN_UNROLL
        for (int j = 0; j < kVectors; ++j) y[j] = load(V{}, column[j] + column_at);
        CROWDTRAIN_UNROLL
        for (int i = 0; i < kRows; ++i) {
            const V x = splat(V{}, row[i][row_at]);
            CROWDTRAIN_UNROLL
            for (int j = 0; j < kVectors; ++j) acc[i * kVectors + j] = ffma_raw(x, y[j], acc[i * kVectors + j]);
        }
    }
    // a NaN accumulator stays NaN whatever its payload, so that making it canonical once is enough
    CROWDTRAIN_UNROLL
    for (int t = 0; t < kRows * kVectors; ++t) {
        store(c + t / kVectors * c_row + t % kVectors * n, canonical(acc[t]));
    }
}

template <class V>
void fill_words(uint32_t* out, uint32_t word, int64_t count) {
    int64_t i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) store(out + i, splat(V{}, word));
    for (; i < count; ++i) out[i] = word;
}

template <class V>
void iota_words(uint32_t* out, uint32_t first, uint32_t step, int64_t count) {
    for (int64_t i = 0; i < count; ++i) out[i] = first + static_cast<uint32_t>(i) * step;
}

// Some words from `in` to `out`, in whole vectors but for the last, which overlaps the one before.
template <class V>
inline void copy_words(uint32_t* out, const uint32_t* in, int64_t count) {
    constexpr int n = V::kLanes;
    if (count < n) {
        for (int64_t i = 0; i < count; ++i) out[i] = in[i];
        return;
    }
    for (int64_t i = 0; i + n <= count; i += n) store(out + i, load(V{}, in + i));
    store(out + count - n, load(V{}, in + count - n));
}

template <class V>
void copy_strided(uint32_t* out, int64_t out_stride, const uint32_t* in, int64_t in_stride, int64_t count) {
    if (out_stride != 1) {
        for (int64_t i = 0; i < count; ++i) out[i * out_stride] = in[i * in_stride];
    } else if (in_stride == 1) {
        copy_words<V>(out, in, count);
    } else if (in_stride == 0) {
        fill_words<V>(out, *in, count);
    } else {
        for (int64_t i = 0; i < count; ++i) out[i] = in[i * in_stride];
    }
}

template <class V>
void copy_rows(uint32_t* out, const uint32_t* in, int64_t in_row, int64_t rows, int64_t in_stride, int64_t count) {
    for (int64_t r = 0; r < rows; ++r) copy_strided<V>(out + r * count, 1, in + r * in_row, in_stride, count);
}

template <class V>
void gather_words(uint32_t* out, const uint32_t* in, const int32_t* offsets, uint32_t word, int64_t count) {
    constexpr int n = V::kLanes;
    int64_t i = 0;
    for (; i + n <= count; i += n) store(out + i, gather(splat(V{}, word), in, offsets + i));
    for (; i < count; ++i) out[i] = offsets[i] < 0 ? word : in[offsets[i]];
}

template <class V>
void pick_words(uint32_t* out, const uint32_t* in, const int32_t* offsets, const Windows* windows, int used, uint32_t word,
                int64_t vectors) {
    constexpr int n = V::kLanes;
    for (int64_t v = 0; v < vectors; ++v, out += n, offsets += n) {
        const int32_t* const at = windows[v].at;
        V picked = splat(V{}, word);
        if (at[0] < 0) {
            picked = gather(picked, in, offsets);
        } else {
            const V here = load(V{}, reinterpret_cast<const uint32_t*>(offsets));
            for (int w = 0; w < used; ++w) {  // a word may be in several
                const V index = isub(here, splat(V{}, static_cast<uint32_t>(at[w])));
                picked = select(ult(index, splat(V{}, n)), permute(load(V{}, in + at[w]), index), picked);
            }
        }
        store(out, picked);
    }
}

template <class V>
void transpose(uint32_t* out, int64_t out_row, const uint32_t* const* rows, int64_t row_count, int64_t columns) {
    constexpr int n = V::kLanes;
    int64_t r = 0;
    for (; r + n <= row_count; r += n) {
        int64_t c = 0;
        for (; c + n <= columns; c += n) {
            V a[n];
            CROWDTRAIN_UNROLL
            for (int i = 0; i < n; ++i) a[i] = load(V{}, rows[r + i] + c);
            transpose_square(a);
            CROWDTRAIN_UNROLL
            for (int i = 0; i < n; ++i) store(out + (c + i) * out_row + r, a[i]);
        }
        for (; c < columns; ++c) {
            for (int i = 0; i < n; ++i) out[c * out_row + r + i] = rows[r + i][c];
        }
    }
    for (; r < row_count; ++r) {
        for (int64_t c = 0; c < columns; ++c) out[c * out_row + r] = rows[r][c];
    }
}

template <class V>
void transpose_panel(uint32_t* out, const uint32_t* const* rows, int64_t row_count, int64_t columns) {
    constexpr int n = V::kLanes;
    int64_t c = 0;
    for (; c + n <= columns; c += n) {
        V a[n];
        CROWDTRAIN_UNROLL
        for (int i = 0; i < n; ++i) a[i] = i < row_count ? load(V{}, rows[i] + c) : V{};
        transpose_square(a);
        CROWDTRAIN_UNROLL  // what is too much of one is overwritten by the next
        for (int i = 0; i < n; ++i) store(out + (c + i) * row_count, a[i]);
    }
    for (; c < columns; ++c) {
        for (int64_t i = 0; i < row_count; ++i) out[c * row_count + i] = rows[i][c];
    }
}

template <class V>
void transpose_out(uint32_t* out, const int32_t* offsets, const uint32_t* in, int64_t in_row, int64_t rows,
                   int64_t columns) {
    constexpr int n = V::kLanes;
    for (int64_t c = 0; c < columns; c += n) {
        V a[n];
        CROWDTRAIN_UNROLL
        for (int i = 0; i < n; ++i) a[i] = i < rows ? load(V{}, in + i * in_row + c) : V{};
        transpose_square(a);
        uint32_t words[n * n];
        CROWDTRAIN_UNROLL
        for (int i = 0; i < n; ++i) store(words + i * n, a[i]);
        const int64_t count = columns - c < n ? columns - c : n;
        for (int64_t i = 0; i < count; ++i) {
            uint32_t* const to = out + offsets[c + i];
            if (rows == V::kTileRows) {
                std::memcpy(to, words + i * n, sizeof(uint32_t) * V::kTileRows);
            } else {
                for (int64_t r = 0; r < rows; ++r) to[r] = words[i * n + r];
            }
        }
    }
}

template <class V, int kWords>
void spread(uint32_t* out, int64_t panel, const uint32_t* in, int64_t in_step, int64_t depth, int64_t panels) {
    constexpr int n = V::kLanes, kWhole = kWords / n * n;
    constexpr int64_t kTogether = 8;  // lines, so that whole cache lines are written; as many are asked for in advance
    constexpr int64_t kLine = 16, kMost = 128;
    const int64_t words = panels * kWords < kMost ? panels * kWords : kMost;
    for (int64_t first = 0; first < depth; first += kTogether) {
        const int64_t last = first + kTogether < depth ? first + kTogether : depth;
        for (int64_t k = last; k < last + kTogether && k < depth; ++k) {
            for (int64_t i = 0; i < words; i += kLine) __builtin_prefetch(in + k * in_step + i);
        }
        for (int64_t p = 0; p < panels; ++p) {
            for (int64_t k = first; k < last; ++k) {
                uint32_t* const to = out + p * panel + k * kWords;
                const uint32_t* const from = in + k * in_step + p * kWords;
                CROWDTRAIN_UNROLL
                for (int i = 0; i < kWhole; i += n) store(to + i, load(V{}, from + i));
                if constexpr (kWhole < kWords) {
                    if (p + 1 < panels) {  // what is too much is overwritten by the next
                        store(to + kWhole, load(V{}, from + kWhole));
                    } else {
                        std::memcpy(to + kWhole, from + kWhole, (kWords - kWhole) * sizeof(uint32_t));
                    }
                }
            }
        }
    }
}

#define CROWDTRAIN_UNARY(X) X(fsqrt) X(fneg) X(fabs) X(f2i) X(f2u) X(i2f) X(u2f) X(exp) X(log) X(tanh) X(erf) X(sigmoid) \
    X(sin) X(cos)
#define CROWDTRAIN_BINARY(X)                                                                                      \
    X(fadd) X(fsub) X(fmul) X(fdiv) X(flt) X(fle) X(feq) X(ilt) X(ult) X(ieq) X(iadd) X(isub) X(imul) X(umulh) \
        X(iand) X(ior) X(ixor) X(shl) X(shr) X(sar)
#define CROWDTRAIN_TERNARY(X) X(ffma) X(select)

// Each operation as a type, for the passes to be instantiated with.
#define CROWDTRAIN_OPERATION(name)        \
    struct Operation_##name {             \
        template <class... V>             \
        static auto of(V... words) {      \
            return name(words...);        \
        }                                 \
    };
// exp: what is far below is 0 without the subnormal product that its formula ends in, which takes processors long.
struct Operation_quick_exp {
    template <class V>
    static V of(V x) {
        const V low = splat(x, 0xc2d00000), zero = splat(x, 0);  // -104
        return select_flt(x, low, zero, exp(select_flt(x, low, zero, x)));
    }
};

struct Operation_same {
    template <class V>
    static V of(V x) {
        return x;
    }
};

CROWDTRAIN_UNARY(CROWDTRAIN_OPERATION)
CROWDTRAIN_BINARY(CROWDTRAIN_OPERATION)
CROWDTRAIN_TERNARY(CROWDTRAIN_OPERATION)
#undef CROWDTRAIN_OPERATION

template <class V>
constexpr void add_passes(Kernels& k) {
#define CROWDTRAIN_PASS(name) k.pass[static_cast<int>(Opcode::name)] = pass<V, Operation_##name, 1>;
    CROWDTRAIN_UNARY(CROWDTRAIN_PASS)
#undef CROWDTRAIN_PASS
#define CROWDTRAIN_PASS(name) k.pass[static_cast<int>(Opcode::name)] = pass<V, Operation_##name, 2>;
    CROWDTRAIN_BINARY(CROWDTRAIN_PASS)
#undef CROWDTRAIN_PASS
#define CROWDTRAIN_PASS(name) k.pass[static_cast<int>(Opcode::name)] = pass<V, Operation_##name, 3>;
    CROWDTRAIN_TERNARY(CROWDTRAIN_PASS)
#undef CROWDTRAIN_PASS
}

template <class V, class S>
constexpr void add_fold(Kernels& k, FoldStep step) {
    k.fold[static_cast<int>(step)] = fold_pass<V, S>;
    k.fold_rows[static_cast<int>(step)] = fold_rows<V, S>;
}

template <class V, int kRow>
constexpr void add_tiles(Kernels& k) {
    if constexpr (kRow <= V::kTileRows) {
        k.tile[0][0][kRow - 1][0] = tile_pass<V, false, false, kRow, 1>;
        k.tile[0][0][kRow - 1][1] = tile_pass<V, false, false, kRow, 2>;
        k.tile[0][1][kRow - 1][0] = tile_pass<V, false, true, kRow, 1>;
        k.tile[0][1][kRow - 1][1] = tile_pass<V, false, true, kRow, 2>;
        k.tile[1][0][kRow - 1][0] = tile_pass<V, true, false, kRow, 1>;
        k.tile[1][0][kRow - 1][1] = tile_pass<V, true, false, kRow, 2>;
        k.tile[1][1][kRow - 1][0] = tile_pass<V, true, true, kRow, 1>;
        k.tile[1][1][kRow - 1][1] = tile_pass<V, true, true, kRow, 2>;
        add_tiles<V, kRow + 1>(k);
    }
}

template <class V>
constexpr Kernels make_kernels() {
    static_assert(V::kTileRows <= kMaxTileRows && V::kTileRows <= V::kLanes && V::kTileVectors == 2);
    Kernels k{};
    k.name = V::kName;
    k.lanes = V::kLanes;
    k.tile_rows = V::kTileRows;
    k.tile_vectors = V::kTileVectors;
    add_passes<V>(k);
    add_fold<V, Sum<V>>(k, FoldStep::sum);
    add_fold<V, MultiplyAdd<V>>(k, FoldStep::multiply_add);
    add_fold<V, Choice<V, true, true>>(k, FoldStep::max);
    add_fold<V, Choice<V, false, false>>(k, FoldStep::max_or_new);
    add_fold<V, Choice<V, false, true>>(k, FoldStep::min);
    add_fold<V, Choice<V, true, false>>(k, FoldStep::min_or_new);
    add_tiles<V, 1>(k);
    k.pass[static_cast<int>(Opcode::exp)] = pass<V, Operation_quick_exp, 1>;
    k.copy = pass<V, Operation_same, 1>;
    k.fill = fill_words<V>;
    k.iota = iota_words<V>;
    k.copy_strided = copy_strided<V>;
    k.copy_rows = copy_rows<V>;
    k.gather = gather_words<V>;
    k.pick = pick_words<V>;
    k.transpose = transpose<V>;
    k.transpose_panel = transpose_panel<V>;
    k.transpose_out = transpose_out<V>;
    k.spread_rows = spread<V, V::kTileRows>;
    k.spread_columns = spread<V, V::kTileVectors * V::kLanes>;
    return k;
}

}  // namespace crowdtrain
