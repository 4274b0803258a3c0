// Four words, in the compiler's own vectors: any architecture, no fused multiply-add needed.
#pragma once

#include <cstdint>
#include <cstring>

namespace crowdtrain::portable {

struct V {
    static constexpr const char* kName = "portable";
    static constexpr int kLanes = 4;
    static constexpr int kTileRows = 4;
    static constexpr int kTileVectors = 2;
    float floats __attribute__((vector_size(16)));
};

using U32 = uint32_t __attribute__((vector_size(16)));
using I32 = int32_t __attribute__((vector_size(16)));
using F32 = float __attribute__((vector_size(16)));
using F64 = double __attribute__((vector_size(32)));
using I64 = int64_t __attribute__((vector_size(32)));
using U64 = uint64_t __attribute__((vector_size(32)));

inline V from(F32 floats) { return {floats}; }
inline V from(U32 words) { return {(F32)words}; }
inline V from(I32 words) { return {(F32)words}; }
inline F32 f32(V v) { return v.floats; }
inline U32 words(V v) { return (U32)v.floats; }
inline I32 i32(V v) { return (I32)v.floats; }

inline V load(V, const uint32_t* at) {
    V v;
    std::memcpy(&v.floats, at, sizeof v.floats);
    return v;
}
inline void store(uint32_t* at, V v) { std::memcpy(at, &v.floats, sizeof v.floats); }
inline V splat(V, uint32_t word) { return from(U32{word, word, word, word}); }
// base[offsets[i]], or the word of `missing` where the offset is negative
inline V gather(V missing, const uint32_t* base, const int32_t* offsets) {
    U32 w = words(missing);
    for (int i = 0; i < V::kLanes; ++i) w[i] = offsets[i] < 0 ? w[i] : base[offsets[i]];
    return from(w);
}

// a[index[i]], the index taken modulo the lanes
inline V permute(V a, V index) {
    U32 w{};
    for (int i = 0; i < V::kLanes; ++i) w[i] = words(a)[words(index)[i] % V::kLanes];
    return from(w);
}

// The words of `a` and `b` in turn: of their lower halves, of their upper halves.
inline V zip_low(V a, V b) { return from(U32{words(a)[0], words(b)[0], words(a)[1], words(b)[1]}); }
inline V zip_high(V a, V b) { return from(U32{words(a)[2], words(b)[2], words(a)[3], words(b)[3]}); }

// `b` where the mask is set, else `c`
inline V choose(I32 mask, V b, V c) { return from((words(b) & (U32)mask) | (words(c) & ~(U32)mask)); }

// Every NaN as the one word that stands for it.
inline V canonical(V v) { return choose(f32(v) == f32(v), v, splat(v, 0x7fc00000)); }

// What ends in _raw leaves a NaN as the processor makes it: for results that only such operations read.
#ifdef __FP_FAST_FMAF
inline V ffma_raw(V a, V b, V c) {
    V r;
    for (int i = 0; i < V::kLanes; ++i) r.floats[i] = __builtin_fmaf(a.floats[i], b.floats[i], c.floats[i]);
    return r;
}
#else
// An exact product in f64, a sum rounded to odd, then to f32: so the last rounding is the only one that counts (Boldo
// and Melquiond, "Emulation of FMA and correctly rounded sums", 2008). The sum's error is exact (Knuth's two-sum).
inline V ffma_raw(V a, V b, V c) {
    const F64 product = __builtin_convertvector(f32(a), F64) * __builtin_convertvector(f32(b), F64);
    const F64 addend = __builtin_convertvector(f32(c), F64);
    const F64 sum = product + addend, part = sum - product;
    const F64 error = (product - (sum - part)) + (addend - part);  // NaN where the sum is not finite
    const I64 inexact = (I64)(error < 0) | (I64)(error > 0);
    const I64 away = (I64)((error > 0) == (sum > 0));  // -1: the magnitude was rounded down
    const I64 bits = (I64)sum, even = (bits & 1) - 1;
    const F64 odd = (F64)(bits + (inexact & even & (-1 - 2 * away)));
    return from(__builtin_convertvector(odd, F32));
}
#endif
inline V fadd_raw(V a, V b) { return from(f32(a) + f32(b)); }
inline V fsub_raw(V a, V b) { return from(f32(a) - f32(b)); }
inline V fmul_raw(V a, V b) { return from(f32(a) * f32(b)); }
inline V fdiv_raw(V a, V b) { return from(f32(a) / f32(b)); }
inline V fsqrt_raw(V a) {
    const F32 x = f32(a);
    return from(F32{__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]), __builtin_sqrtf(x[3])});
}

inline V iand(V a, V b) { return from(words(a) & words(b)); }
inline V ior(V a, V b) { return from(words(a) | words(b)); }
inline V ixor(V a, V b) { return from(words(a) ^ words(b)); }
inline V iadd(V a, V b) { return from(words(a) + words(b)); }
inline V isub(V a, V b) { return from(words(a) - words(b)); }
inline V imul(V a, V b) { return from(words(a) * words(b)); }
inline V umulh(V a, V b) {
    const U64 wide = __builtin_convertvector(words(a), U64) * __builtin_convertvector(words(b), U64);
    return from(__builtin_convertvector(wide >> 32, U32));
}
inline V shl(V a, V b) { return from(words(a) << (words(b) & 31)); }
inline V shr(V a, V b) { return from(words(a) >> (words(b) & 31)); }
inline V sar(V a, V b) { return from(i32(a) >> (i32(b) & 31)); }

inline V fneg_raw(V a) { return ixor(a, splat(a, 0x80000000)); }
inline V fabs_raw(V a) { return iand(a, splat(a, 0x7fffffff)); }

inline V one_where(I32 mask) { return from((U32)mask >> 31); }
inline V flt(V a, V b) { return one_where(f32(a) < f32(b)); }
inline V fle(V a, V b) { return one_where(f32(a) <= f32(b)); }
inline V feq(V a, V b) { return one_where(f32(a) == f32(b)); }
inline V ilt(V a, V b) { return one_where(i32(a) < i32(b)); }
inline V ult(V a, V b) { return one_where(words(a) < words(b)); }
inline V ieq(V a, V b) { return one_where(words(a) == words(b)); }
inline V select(V a, V b, V c) { return choose(words(a) != 0, b, c); }
// select(flt(a, b), x, y)
inline V select_flt(V a, V b, V x, V y) { return choose(f32(a) < f32(b), x, y); }

// toward zero; 0x80000000 beyond i32 and for NaN (where C++ leaves it open)
inline V truncate(V a) {
    const F32 x = f32(a);
    const I32 fits = (x >= -0x1p31f) & (x < 0x1p31f);
    const F32 safe = f32(choose(fits, a, splat(a, 0)));
    return choose(fits, from(__builtin_convertvector(safe, I32)), splat(a, 0x80000000));
}
inline V i2f(V a) { return from(__builtin_convertvector(i32(a), F32)); }

}  // namespace crowdtrain::portable
