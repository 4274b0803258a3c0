// Four words in a NEON register of AArch64, which has all that is needed: fused multiply-add, division, subnormals.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace crowdtrain::neon {

struct V {
    static constexpr const char* kName = "neon";
    static constexpr int kLanes = 4;
    static constexpr int kTileRows = 4;     // transposes want no more rows than lanes
    static constexpr int kTileVectors = 2;
    float32x4_t floats;
};

inline V from(float32x4_t floats) { return {floats}; }
inline V from(uint32x4_t words) { return {vreinterpretq_f32_u32(words)}; }
inline V from(int32x4_t words) { return {vreinterpretq_f32_s32(words)}; }
inline float32x4_t f32(V v) { return v.floats; }
inline uint32x4_t words(V v) { return vreinterpretq_u32_f32(v.floats); }
inline int32x4_t i32(V v) { return vreinterpretq_s32_f32(v.floats); }

inline V load(V, const uint32_t* at) { return from(vld1q_u32(at)); }
inline void store(uint32_t* at, V v) { vst1q_u32(at, words(v)); }
inline V splat(V, uint32_t word) { return from(vdupq_n_u32(word)); }
// base[offsets[i]], or the word of `missing` where the offset is negative
inline V gather(V missing, const uint32_t* base, const int32_t* offsets) {
    uint32_t w[V::kLanes];
    store(w, missing);
    for (int i = 0; i < V::kLanes; ++i) w[i] = offsets[i] < 0 ? w[i] : base[offsets[i]];
    return load(missing, w);
}

// a[index[i]], the index taken modulo the lanes
inline V permute(V a, V index) {
    const uint32x4_t bytes = vmlaq_n_u32(vdupq_n_u32(0x03020100), vandq_u32(words(index), vdupq_n_u32(3)), 0x04040404);
    return from(vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_u32(words(a)), vreinterpretq_u8_u32(bytes))));
}

// The words of `a` and `b` in turn: of their lower halves, of their upper halves.
inline V zip_low(V a, V b) { return from(vzip1q_u32(words(a), words(b))); }
inline V zip_high(V a, V b) { return from(vzip2q_u32(words(a), words(b))); }

// Every NaN as the one word that stands for it.
inline V canonical(V v) { return from(vbslq_u32(vceqq_f32(f32(v), f32(v)), words(v), vdupq_n_u32(0x7fc00000))); }

// What ends in _raw leaves a NaN as the processor makes it: for results that only such operations read.
inline V ffma_raw(V a, V b, V c) { return from(vfmaq_f32(f32(c), f32(a), f32(b))); }
inline V fadd_raw(V a, V b) { return from(vaddq_f32(f32(a), f32(b))); }
inline V fsub_raw(V a, V b) { return from(vsubq_f32(f32(a), f32(b))); }
inline V fmul_raw(V a, V b) { return from(vmulq_f32(f32(a), f32(b))); }
inline V fdiv_raw(V a, V b) { return from(vdivq_f32(f32(a), f32(b))); }
inline V fsqrt_raw(V a) { return from(vsqrtq_f32(f32(a))); }

inline V iand(V a, V b) { return from(vandq_u32(words(a), words(b))); }
inline V ior(V a, V b) { return from(vorrq_u32(words(a), words(b))); }
inline V ixor(V a, V b) { return from(veorq_u32(words(a), words(b))); }
inline V iadd(V a, V b) { return from(vaddq_u32(words(a), words(b))); }
inline V isub(V a, V b) { return from(vsubq_u32(words(a), words(b))); }
inline V imul(V a, V b) { return from(vmulq_u32(words(a), words(b))); }
inline V umulh(V a, V b) {
    const uint64x2_t low = vmull_u32(vget_low_u32(words(a)), vget_low_u32(words(b)));
    const uint64x2_t high = vmull_high_u32(words(a), words(b));
    return from(vuzp2q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high)));
}
// Shifts to the right are shifts to the left by a negative count.
inline int32x4_t count(V b) { return vandq_s32(i32(b), vdupq_n_s32(31)); }
inline V shl(V a, V b) { return from(vshlq_u32(words(a), count(b))); }
inline V shr(V a, V b) { return from(vshlq_u32(words(a), vnegq_s32(count(b)))); }
inline V sar(V a, V b) { return from(vshlq_s32(i32(a), vnegq_s32(count(b)))); }

inline V fneg_raw(V a) { return ixor(a, splat(a, 0x80000000)); }
inline V fabs_raw(V a) { return iand(a, splat(a, 0x7fffffff)); }

inline V one_where(uint32x4_t mask) { return from(vshrq_n_u32(mask, 31)); }
inline V flt(V a, V b) { return one_where(vcltq_f32(f32(a), f32(b))); }
inline V fle(V a, V b) { return one_where(vcleq_f32(f32(a), f32(b))); }
inline V feq(V a, V b) { return one_where(vceqq_f32(f32(a), f32(b))); }
inline V ilt(V a, V b) { return one_where(vcltq_s32(i32(a), i32(b))); }
inline V ult(V a, V b) { return one_where(vcltq_u32(words(a), words(b))); }
inline V ieq(V a, V b) { return one_where(vceqq_u32(words(a), words(b))); }
inline V select(V a, V b, V c) { return from(vbslq_u32(vceqzq_u32(words(a)), words(c), words(b))); }
// select(flt(a, b), x, y)
inline V select_flt(V a, V b, V x, V y) { return from(vbslq_u32(vcltq_f32(f32(a), f32(b)), words(x), words(y))); }

// toward zero; 0x80000000 beyond i32 and for NaN (where the processor saturates)
inline V truncate(V a) {
    const float32x4_t x = f32(a);
    const uint32x4_t fits = vandq_u32(vcgeq_f32(x, vdupq_n_f32(-0x1p31f)), vcltq_f32(x, vdupq_n_f32(0x1p31f)));
    return from(vbslq_u32(fits, vreinterpretq_u32_s32(vcvtq_s32_f32(x)), vdupq_n_u32(0x80000000)));
}
inline V i2f(V a) { return from(vcvtq_f32_s32(i32(a))); }

}  // namespace crowdtrain::neon
