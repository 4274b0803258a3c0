// SHA-256 with the processor's SHA instructions. Two messages at a time: the second fills the first one's waits.
#if defined(__x86_64__)

#include <immintrin.h>

#include "sha256.hpp"

namespace crowdtrain {
namespace {

// The eight state words as the instructions want them.
struct State {
    __m128i abef, cdgh;
};

State start() {
    const __m128i dcba = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kSha256Start));
    const __m128i hgfe = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kSha256Start + 4));
    const __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    return {_mm_alignr_epi8(cdab, efgh, 8), _mm_blend_epi16(efgh, cdab, 0xf0)};
}

const __m128i kByteOrder = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);

void finish(const State& state, uint8_t* digest) {
    const __m128i feba = _mm_shuffle_epi32(state.abef, 0x1b), dchg = _mm_shuffle_epi32(state.cdgh, 0xb1);
    const __m128i dcba = _mm_blend_epi16(feba, dchg, 0xf0), hgfe = _mm_alignr_epi8(dchg, feba, 8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(digest), _mm_shuffle_epi8(dcba, kByteOrder));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(digest + 16), _mm_shuffle_epi8(hgfe, kByteOrder));
}

// Four rounds.
inline void rounds(State& s, __m128i words, int group) {
    const __m128i k = _mm_load_si128(reinterpret_cast<const __m128i*>(kSha256Rounds) + group);
    const __m128i sum = _mm_add_epi32(words, k);
    s.cdgh = _mm_sha256rnds2_epu32(s.cdgh, s.abef, sum);
    s.abef = _mm_sha256rnds2_epu32(s.abef, s.cdgh, _mm_shuffle_epi32(sum, 0x0e));
}

// The next four words of the schedule, in place of the oldest.
inline void schedule(__m128i (&w)[4], int group) {
    const __m128i newest = w[(group + 3) % 4], before = w[(group + 2) % 4];
    const __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w[group % 4], w[(group + 1) % 4]),
                                      _mm_alignr_epi8(newest, before, 4));
    w[group % 4] = _mm_sha256msg2_epu32(sum, newest);
}

}  // namespace

void hash_pair_sha(const uint8_t* first, const uint8_t* second, size_t blocks, uint8_t* first_digest,
                   uint8_t* second_digest) {
    State a = start(), b = a;
    for (size_t block = 0; block < blocks; ++block) {
        const State a_before = a, b_before = b;
        __m128i u[4], v[4];
        for (int i = 0; i < 4; ++i) {
            const size_t at = 64 * block + 16 * static_cast<size_t>(i);
            u[i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(first + at)), kByteOrder);
            v[i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(second + at)), kByteOrder);
        }
#pragma GCC unroll 16
        for (int group = 0; group < 16; ++group) {
            rounds(a, u[group % 4], group);
            rounds(b, v[group % 4], group);
            if (group < 12) {
                schedule(u, group);
                schedule(v, group);
            }
        }
        a = {_mm_add_epi32(a.abef, a_before.abef), _mm_add_epi32(a.cdgh, a_before.cdgh)};
        b = {_mm_add_epi32(b.abef, b_before.abef), _mm_add_epi32(b.cdgh, b_before.cdgh)};
    }
    finish(a, first_digest);
    finish(b, second_digest);
}

}  // namespace crowdtrain

#endif
