#include "merkle.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "sha256.hpp"

namespace crowdtrain {
namespace {

constexpr size_t kPage = 1024, kDigest = 32;

// A message of `size` bytes with its padding.
template <size_t size>
struct Message {
    static constexpr size_t kBlocks = (size + 9 + 63) / 64;
    uint8_t bytes[kBlocks * 64] = {};

    explicit Message(uint8_t prefix) {
        bytes[0] = prefix;
        bytes[size] = 0x80;
        for (int i = 0; i < 4; ++i) bytes[kBlocks * 64 - 1 - i] = static_cast<uint8_t>(size * 8 >> (8 * i));
    }
};

// Calls task(begin, end) over [0, count) on up to `threads` threads, each of at least `least`.
template <class Task>
void parallel(size_t count, size_t least, int threads, const Task& task) {
    const size_t parts = std::clamp<size_t>(count / least, 1, static_cast<size_t>(std::max(threads, 1)));
    std::vector<std::thread> others;
    for (size_t part = 1; part < parts; ++part) {
        others.emplace_back(task, count * part / parts, count * (part + 1) / parts);
    }
    task(0, count / parts);
    for (std::thread& other : others) other.join();
}

// One level up: nodes over neighbours; where the right one is missing, it is `padding`.
void hash_nodes(HashPair hash, const uint8_t* level, size_t count, const Digest& padding, uint8_t* out, size_t begin,
                size_t end) {
    Message<1 + 2 * kDigest> a(1), b(1);
    Digest unused;
    const auto set = [&](Message<1 + 2 * kDigest>& message, size_t node) {
        std::memcpy(message.bytes + 1, level + 2 * node * kDigest, kDigest);
        const uint8_t* right = 2 * node + 1 < count ? level + (2 * node + 1) * kDigest : padding.data();
        std::memcpy(message.bytes + 1 + kDigest, right, kDigest);
    };
    for (size_t node = begin; node < end; node += 2) {
        const bool pair = node + 1 < end;
        set(a, node);
        if (pair) set(b, node + 1);
        hash(a.bytes, b.bytes, a.kBlocks, out + node * kDigest, pair ? out + (node + 1) * kDigest : unused.data());
    }
}

}  // namespace

std::string tensor_leaves(std::span<const uint8_t> tensor, int threads) {
    if (tensor.empty()) throw std::invalid_argument("a Merkle tree needs at least one leaf");
    const size_t pages = (tensor.size() + kPage - 1) / kPage;
    const HashPair hash = best_hash_pair();
    std::string leaves(pages * kDigest, '\0');
    auto* const out = reinterpret_cast<uint8_t*>(leaves.data());
    parallel(pages, 512, threads, [&](size_t begin, size_t end) {
        Message<1 + kPage> a(0), b(0);
        Digest unused;
        const auto set = [&](Message<1 + kPage>& message, size_t page) {
            const size_t size = std::min(kPage, tensor.size() - page * kPage);
            std::memcpy(message.bytes + 1, tensor.data() + page * kPage, size);
            std::memset(message.bytes + 1 + size, 0, kPage - size);
        };
        for (size_t page = begin; page < end; page += 2) {
            const bool pair = page + 1 < end;
            set(a, page);
            if (pair) set(b, page + 1);
            hash(a.bytes, b.bytes, a.kBlocks, out + page * kDigest, pair ? out + (page + 1) * kDigest : unused.data());
        }
    });
    return leaves;
}

std::string tensor_root(std::span<const uint8_t> tensor, int threads) {
    std::string level = tensor_leaves(tensor, threads);
    const HashPair hash = best_hash_pair();
    Digest padding{};  // the root of a subtree of padding alone, as high as `level`
    while (level.size() > kDigest) {
        const size_t count = level.size() / kDigest, nodes = (count + 1) / 2;
        std::string above(nodes * kDigest, '\0');
        parallel(nodes, 4096, threads, [&](size_t begin, size_t end) {
            hash_nodes(hash, reinterpret_cast<const uint8_t*>(level.data()), count, padding,
                       reinterpret_cast<uint8_t*>(above.data()), begin, end);
        });
        Digest both[2] = {padding, padding};
        hash_nodes(hash, both[0].data(), 2, padding, padding.data(), 0, 1);
        level = std::move(above);
    }
    return level;
}

}  // namespace crowdtrain
