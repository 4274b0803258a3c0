// The conversions between f32 and integers, from what every vector of words V has. Found by the elementary functions.
#pragma once

#include <cstdint>

namespace crowdtrain {

// f32 to i32: toward zero, saturating, NaN gives 0
template <class V>
inline V f2i(V a) {
    const V saturated = where_less(a, 0x1p31f, truncate(a), splat(a, 0x7fffffff));
    return select(feq(a, a), saturated, splat(a, 0));
}

// f32 to u32: toward zero, saturating, NaN gives 0
template <class V>
inline V f2u(V a) {
    const V low = where_less(a, 0.0f, splat(a, 0), truncate(a));
    const V high = iadd(truncate(fsub(a, splat(a, 0x4f000000))), splat(a, 0x80000000));  // a - 2^31 is exact
    const V either = where_less(a, 0x1p31f, low, where_less(a, 0x1p32f, high, splat(a, 0xffffffff)));
    return select(feq(a, a), either, splat(a, 0));
}

// u32 to f32, rounded once: both halves and the product with 2^16 are exact
template <class V>
inline V u2f(V a) {
    const V high = fmul(i2f(shr(a, splat(a, 16))), splat(a, 0x47800000));
    return fadd(high, i2f(iand(a, splat(a, 0xffff))));
}

}  // namespace crowdtrain
