// Eight words in an AVX2 register. Needs AVX2 and FMA.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace crowdtrain::avx2 {

struct V {
    static constexpr const char* kName = "avx2";
    static constexpr int kLanes = 8;
    static constexpr int kTileRows = 6;     // 6 x 2 accumulators, 2 columns and 1 broadcast in 16 registers
    static constexpr int kTileVectors = 2;
    __m256 floats;
};

inline V from(__m256 floats) { return {floats}; }
inline V from(__m256i words) { return {_mm256_castsi256_ps(words)}; }
inline __m256 f32(V v) { return v.floats; }
inline __m256i words(V v) { return _mm256_castps_si256(v.floats); }

inline V load(V, const uint32_t* at) { return from(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))); }
inline void store(uint32_t* at, V v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), words(v)); }
inline V splat(V, uint32_t word) { return from(_mm256_set1_epi32(static_cast<int>(word))); }
// base[offsets[i]], or the word of `missing` where the offset is negative
inline V gather(V missing, const uint32_t* base, const int32_t* offsets) {
    const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(offsets));
    const __m256i there = _mm256_xor_si256(at, _mm256_set1_epi32(-1));  // the sign says which are read
    return from(_mm256_mask_i32gather_epi32(words(missing), reinterpret_cast<const int*>(base), at, there, 4));
}

// a[index[i]], the index taken modulo the lanes
inline V permute(V a, V index) { return from(_mm256_permutevar8x32_epi32(words(a), words(index))); }

// The words of `a` and `b` in turn: of their lower halves, of their upper halves.
inline V zip_low(V a, V b) {
    const __m256i low = _mm256_unpacklo_epi32(words(a), words(b)), high = _mm256_unpackhi_epi32(words(a), words(b));
    return from(_mm256_permute2x128_si256(low, high, 0x20));
}
inline V zip_high(V a, V b) {
    const __m256i low = _mm256_unpacklo_epi32(words(a), words(b)), high = _mm256_unpackhi_epi32(words(a), words(b));
    return from(_mm256_permute2x128_si256(low, high, 0x31));
}

// The transpose of a square of words.
inline void transpose_square(V (&a)[V::kLanes]) {
    __m256 pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(f32(a[i]), f32(a[i + 1]));
        pairs[i + 1] = _mm256_unpackhi_ps(f32(a[i]), f32(a[i + 1]));
    }
    for (int i = 0; i < 8; i += 4) {
        for (int half = 0; half < 2; ++half) {
            fours[i + 2 * half] = _mm256_shuffle_ps(pairs[i + half], pairs[i + half + 2], 0x44);
            fours[i + 2 * half + 1] = _mm256_shuffle_ps(pairs[i + half], pairs[i + half + 2], 0xee);
        }
    }
    for (int i = 0; i < 4; ++i) {
        a[i] = from(_mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
        a[i + 4] = from(_mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
    }
}

// Four words of each of eight lines, transposed: word at + j of line i is in lane i of a[j].
inline void load_columns(V (&a)[4], const uint32_t* const* lines, int64_t at) {
    const auto quarter = [&](int line) { return _mm_loadu_ps(reinterpret_cast<const float*>(lines[line] + at)); };
    __m256 rows[4];
    for (int i = 0; i < 4; ++i) rows[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(quarter(i)), quarter(i + 4), 1);
    for (int half = 0; half < 2; ++half) {
        const __m256 low = half ? _mm256_unpackhi_ps(rows[0], rows[1]) : _mm256_unpacklo_ps(rows[0], rows[1]);
        const __m256 high = half ? _mm256_unpackhi_ps(rows[2], rows[3]) : _mm256_unpacklo_ps(rows[2], rows[3]);
        a[2 * half] = from(_mm256_shuffle_ps(low, high, 0x44));
        a[2 * half + 1] = from(_mm256_shuffle_ps(low, high, 0xee));
    }
}

// Every NaN as the one word that stands for it.
inline V canonical(V v) {
    const __m256 is_nan = _mm256_cmp_ps(f32(v), f32(v), _CMP_UNORD_Q);
    return from(_mm256_blendv_ps(f32(v), f32(splat(v, 0x7fc00000)), is_nan));
}

// What ends in _raw leaves a NaN as the processor makes it: for results that only such operations read.
inline V ffma_raw(V a, V b, V c) { return from(_mm256_fmadd_ps(f32(a), f32(b), f32(c))); }
inline V fadd_raw(V a, V b) { return from(_mm256_add_ps(f32(a), f32(b))); }
inline V fsub_raw(V a, V b) { return from(_mm256_sub_ps(f32(a), f32(b))); }
inline V fmul_raw(V a, V b) { return from(_mm256_mul_ps(f32(a), f32(b))); }
inline V fdiv_raw(V a, V b) { return from(_mm256_div_ps(f32(a), f32(b))); }
inline V fsqrt_raw(V a) { return from(_mm256_sqrt_ps(f32(a))); }

inline V iand(V a, V b) { return from(_mm256_and_si256(words(a), words(b))); }
inline V ior(V a, V b) { return from(_mm256_or_si256(words(a), words(b))); }
inline V ixor(V a, V b) { return from(_mm256_xor_si256(words(a), words(b))); }
inline V iadd(V a, V b) { return from(_mm256_add_epi32(words(a), words(b))); }
inline V isub(V a, V b) { return from(_mm256_sub_epi32(words(a), words(b))); }
inline V imul(V a, V b) { return from(_mm256_mullo_epi32(words(a), words(b))); }
inline V umulh(V a, V b) {
    const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(words(a), words(b)), 32);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(words(a), 32), _mm256_srli_epi64(words(b), 32));
    return from(_mm256_blend_epi32(even, odd, 0xaa));
}
inline V shl(V a, V b) { return from(_mm256_sllv_epi32(words(a), words(iand(b, splat(b, 31))))); }
inline V shr(V a, V b) { return from(_mm256_srlv_epi32(words(a), words(iand(b, splat(b, 31))))); }
inline V sar(V a, V b) { return from(_mm256_srav_epi32(words(a), words(iand(b, splat(b, 31))))); }

inline V fneg_raw(V a) { return ixor(a, splat(a, 0x80000000)); }
inline V fabs_raw(V a) { return iand(a, splat(a, 0x7fffffff)); }

inline V one_where(__m256i mask) { return from(_mm256_srli_epi32(mask, 31)); }
inline V one_where(__m256 mask) { return one_where(_mm256_castps_si256(mask)); }
inline V flt(V a, V b) { return one_where(_mm256_cmp_ps(f32(a), f32(b), _CMP_LT_OQ)); }
inline V fle(V a, V b) { return one_where(_mm256_cmp_ps(f32(a), f32(b), _CMP_LE_OQ)); }
inline V feq(V a, V b) { return one_where(_mm256_cmp_ps(f32(a), f32(b), _CMP_EQ_OQ)); }
inline V ilt(V a, V b) { return one_where(_mm256_cmpgt_epi32(words(b), words(a))); }
inline V ult(V a, V b) {
    const V top = splat(a, 0x80000000);
    return ilt(ixor(a, top), ixor(b, top));
}
inline V ieq(V a, V b) { return one_where(_mm256_cmpeq_epi32(words(a), words(b))); }
inline V select(V a, V b, V c) {
    const __m256i is_zero = _mm256_cmpeq_epi32(words(a), _mm256_setzero_si256());
    return from(_mm256_blendv_epi8(words(b), words(c), is_zero));
}
// select(flt(a, b), x, y)
inline V select_flt(V a, V b, V x, V y) {
    return from(_mm256_blendv_ps(f32(y), f32(x), _mm256_cmp_ps(f32(a), f32(b), _CMP_LT_OQ)));
}

// toward zero; 0x80000000 beyond i32 and for NaN
inline V truncate(V a) { return from(_mm256_cvttps_epi32(f32(a))); }
inline V i2f(V a) { return from(_mm256_cvtepi32_ps(words(a))); }

}  // namespace crowdtrain::avx2
