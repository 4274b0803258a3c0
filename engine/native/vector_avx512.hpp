// Sixteen words in an AVX-512 register. Needs AVX-512 F, DQ, BW and VL.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace crowdtrain::avx512 {

struct V {
    static constexpr const char* kName = "avx512";
    static constexpr int kLanes = 16;
    static constexpr int kTileRows = 14;    // 14 x 2 accumulators, 2 columns and 1 broadcast in 32 registers
    static constexpr int kTileVectors = 2;
    __m512 floats;
};

inline V from(__m512 floats) { return {floats}; }
inline V from(__m512i words) { return {_mm512_castsi512_ps(words)}; }
inline __m512 f32(V v) { return v.floats; }
inline __m512i words(V v) { return _mm512_castps_si512(v.floats); }

inline V load(V, const uint32_t* at) { return from(_mm512_loadu_si512(at)); }
inline void store(uint32_t* at, V v) { _mm512_storeu_si512(at, words(v)); }
inline V splat(V, uint32_t word) { return from(_mm512_set1_epi32(static_cast<int>(word))); }
// base[offsets[i]], or the word of `missing` where the offset is negative
inline V gather(V missing, const uint32_t* base, const int32_t* offsets) {
    const __m512i at = _mm512_loadu_si512(offsets);
    const __mmask16 there = _mm512_cmpge_epi32_mask(at, _mm512_setzero_si512());
    return from(_mm512_mask_i32gather_epi32(words(missing), there, at, base, 4));
}

// a[index[i]], the index taken modulo the lanes
inline V permute(V a, V index) { return from(_mm512_permutexvar_epi32(words(index), words(a))); }

// The words of `a` and `b` in turn: of their lower halves, of their upper halves.
inline V zip_low(V a, V b) {
    const __m512i turns = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return from(_mm512_permutex2var_epi32(words(a), turns, words(b)));
}
inline V zip_high(V a, V b) {
    const __m512i turns = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
    return from(_mm512_permutex2var_epi32(words(a), turns, words(b)));
}

// Four words of each of sixteen lines, transposed: word at + j of line i is in lane i of a[j].
inline void load_columns(V (&a)[4], const uint32_t* const* lines, int64_t at) {
    const auto quarter = [&](int line) { return _mm_loadu_ps(reinterpret_cast<const float*>(lines[line] + at)); };
    __m512 rows[4];
    for (int i = 0; i < 4; ++i) {
        rows[i] = _mm512_castps128_ps512(quarter(i));
        rows[i] = _mm512_insertf32x4(rows[i], quarter(i + 4), 1);
        rows[i] = _mm512_insertf32x4(rows[i], quarter(i + 8), 2);
        rows[i] = _mm512_insertf32x4(rows[i], quarter(i + 12), 3);
    }
    for (int half = 0; half < 2; ++half) {
        const __m512 low = half ? _mm512_unpackhi_ps(rows[0], rows[1]) : _mm512_unpacklo_ps(rows[0], rows[1]);
        const __m512 high = half ? _mm512_unpackhi_ps(rows[2], rows[3]) : _mm512_unpacklo_ps(rows[2], rows[3]);
        a[2 * half] = from(_mm512_shuffle_ps(low, high, 0x44));
        a[2 * half + 1] = from(_mm512_shuffle_ps(low, high, 0xee));
    }
}

// Every NaN as the one word that stands for it.
inline V canonical(V v) {
    const __mmask16 is_nan = _mm512_cmp_ps_mask(f32(v), f32(v), _CMP_UNORD_Q);
    return from(_mm512_mask_set1_epi32(words(v), is_nan, 0x7fc00000));
}

// What ends in _raw leaves a NaN as the processor makes it: for results that only such operations read.
inline V ffma_raw(V a, V b, V c) { return from(_mm512_fmadd_ps(f32(a), f32(b), f32(c))); }
inline V fadd_raw(V a, V b) { return from(_mm512_add_ps(f32(a), f32(b))); }
inline V fsub_raw(V a, V b) { return from(_mm512_sub_ps(f32(a), f32(b))); }
inline V fmul_raw(V a, V b) { return from(_mm512_mul_ps(f32(a), f32(b))); }
inline V fdiv_raw(V a, V b) { return from(_mm512_div_ps(f32(a), f32(b))); }
inline V fsqrt_raw(V a) { return from(_mm512_sqrt_ps(f32(a))); }

inline V iand(V a, V b) { return from(_mm512_and_si512(words(a), words(b))); }
inline V ior(V a, V b) { return from(_mm512_or_si512(words(a), words(b))); }
inline V ixor(V a, V b) { return from(_mm512_xor_si512(words(a), words(b))); }
inline V iadd(V a, V b) { return from(_mm512_add_epi32(words(a), words(b))); }
inline V isub(V a, V b) { return from(_mm512_sub_epi32(words(a), words(b))); }
inline V imul(V a, V b) { return from(_mm512_mullo_epi32(words(a), words(b))); }
inline V umulh(V a, V b) {
    const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(words(a), words(b)), 32);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(words(a), 32), _mm512_srli_epi64(words(b), 32));
    return from(_mm512_mask_blend_epi32(0xaaaa, even, odd));
}
inline V shl(V a, V b) { return from(_mm512_sllv_epi32(words(a), words(iand(b, splat(b, 31))))); }
inline V shr(V a, V b) { return from(_mm512_srlv_epi32(words(a), words(iand(b, splat(b, 31))))); }
inline V sar(V a, V b) { return from(_mm512_srav_epi32(words(a), words(iand(b, splat(b, 31))))); }

inline V fneg_raw(V a) { return ixor(a, splat(a, 0x80000000)); }
inline V fabs_raw(V a) { return iand(a, splat(a, 0x7fffffff)); }

inline V one_where(__mmask16 mask) { return from(_mm512_maskz_set1_epi32(mask, 1)); }
inline V flt(V a, V b) { return one_where(_mm512_cmp_ps_mask(f32(a), f32(b), _CMP_LT_OQ)); }
inline V fle(V a, V b) { return one_where(_mm512_cmp_ps_mask(f32(a), f32(b), _CMP_LE_OQ)); }
inline V feq(V a, V b) { return one_where(_mm512_cmp_ps_mask(f32(a), f32(b), _CMP_EQ_OQ)); }
inline V ilt(V a, V b) { return one_where(_mm512_cmplt_epi32_mask(words(a), words(b))); }
inline V ult(V a, V b) { return one_where(_mm512_cmplt_epu32_mask(words(a), words(b))); }
inline V ieq(V a, V b) { return one_where(_mm512_cmpeq_epi32_mask(words(a), words(b))); }
inline V select(V a, V b, V c) {
    return from(_mm512_mask_blend_epi32(_mm512_test_epi32_mask(words(a), words(a)), words(c), words(b)));
}
// select(flt(a, b), x, y)
inline V select_flt(V a, V b, V x, V y) {
    return from(_mm512_mask_blend_ps(_mm512_cmp_ps_mask(f32(a), f32(b), _CMP_LT_OQ), f32(y), f32(x)));
}

// toward zero; 0x80000000 beyond i32 and for NaN
inline V truncate(V a) { return from(_mm512_cvttps_epi32(f32(a))); }
inline V i2f(V a) { return from(_mm512_cvtepi32_ps(words(a))); }

}  // namespace crowdtrain::avx512
