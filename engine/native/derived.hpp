// Operations made of what every vector of words V has: arithmetic whose NaN is the one word, conversions between f32 and
// integers. Found by the elementary functions.
#pragma once

#include <cstdint>

namespace crowdtrain {

template <class V>
inline V fadd(V a, V b) { return canonical(fadd_raw(a, b)); }
template <class V>
inline V fsub(V a, V b) { return canonical(fsub_raw(a, b)); }
template <class V>
inline V fmul(V a, V b) { return canonical(fmul_raw(a, b)); }
template <class V>
inline V fdiv(V a, V b) { return canonical(fdiv_raw(a, b)); }
template <class V>
inline V ffma(V a, V b, V c) { return canonical(ffma_raw(a, b, c)); }
template <class V>
inline V fsqrt(V a) { return canonical(fsqrt_raw(a)); }
template <class V>
inline V fneg(V a) { return canonical(fneg_raw(a)); }
template <class V>
inline V fabs(V a) { return canonical(fabs_raw(a)); }

// f32 to i32: toward zero, saturating, NaN gives 0
template <class V>
inline V f2i(V a) {
    const V saturated = select_flt(a, splat(a, 0x4f000000), truncate(a), splat(a, 0x7fffffff));
    return select(feq(a, a), saturated, splat(a, 0));
}

// f32 to u32: toward zero, saturating, NaN gives 0
template <class V>
inline V f2u(V a) {
    const V low = select_flt(a, splat(a, 0), splat(a, 0), truncate(a));
    const V high = iadd(truncate(fsub(a, splat(a, 0x4f000000))), splat(a, 0x80000000));  // a - 2^31 is exact
    const V either = select_flt(a, splat(a, 0x4f000000), low, select_flt(a, splat(a, 0x4f800000), high, splat(a, 0xffffffff)));
    return select(feq(a, a), either, splat(a, 0));
}

// u32 to f32, rounded once: both halves and the product with 2^16 are exact
template <class V>
inline V u2f(V a) {
    const V high = fmul(i2f(shr(a, splat(a, 16))), splat(a, 0x47800000));
    return fadd(high, i2f(iand(a, splat(a, 0xffff))));
}

}  // namespace crowdtrain
