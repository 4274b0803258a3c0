// SHA-256 as FIPS 180-4 has it, for any machine.
#include "sha256.hpp"

#include <bit>

#include "isa.hpp"

namespace crowdtrain {
namespace {

uint32_t big_endian(const uint8_t* at) {
    return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | uint32_t{at[3]};
}

void compress(std::array<uint32_t, 8>& state, const uint8_t* block) {
    std::array<uint32_t, 64> w;
    for (int t = 0; t < 16; ++t) w[t] = big_endian(block + 4 * t);
    for (int t = 16; t < 64; ++t) {
        const uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
        const uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (int t = 0; t < 64; ++t) {
        const uint32_t sum1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
        const uint32_t t1 = h + sum1 + ((e & f) ^ (~e & g)) + kSha256Rounds[t] + w[t];
        const uint32_t sum0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
        const uint32_t t2 = sum0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    const std::array<uint32_t, 8> add = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state[i] += add[i];
}

void hash(const uint8_t* message, size_t blocks, uint8_t* digest) {
    std::array<uint32_t, 8> state = std::to_array(kSha256Start);
    for (size_t i = 0; i < blocks; ++i) compress(state, message + 64 * i);
    for (int i = 0; i < 32; ++i) digest[i] = static_cast<uint8_t>(state[i / 4] >> (24 - 8 * (i % 4)));
}

}  // namespace

void hash_pair_portable(const uint8_t* first, const uint8_t* second, size_t blocks, uint8_t* first_digest,
                        uint8_t* second_digest) {
    hash(first, blocks, first_digest);
    hash(second, blocks, second_digest);
}

HashPair best_hash_pair() {
#if defined(__x86_64__)
    if (has_sha_extensions()) return hash_pair_sha;
#endif
    return hash_pair_portable;
}

}  // namespace crowdtrain
