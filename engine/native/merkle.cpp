#include "merkle.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "pool.hpp"

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

constexpr int kPieceLevels = 6;                    // of a subtree that is hashed in one go
constexpr size_t kPiece = size_t{1} << kPieceLevels;  // its pages

// Calls task(part) for each part, on threads that stay for the next call, which may have been asleep. They are never
// joined: a process may end, or have forked, while they sleep.
void parallel(size_t parts, int threads, const std::function<void(int64_t part, int thread)>& task) {
    static std::mutex mutex;
    static Pool* pool = nullptr;
    const std::unique_lock lock(mutex, std::try_to_lock);
    if (!lock || threads <= 1 || parts <= 1) {
        for (size_t part = 0; part < parts; ++part) task(static_cast<int64_t>(part), 0);
        return;
    }
    if (!pool || pool->threads() != threads) {
        delete std::exchange(pool, nullptr);
        pool = new Pool(threads);
    }
    pool->run(static_cast<int64_t>(parts), task);
}

// Leaves of pages begin … end - 1.
void hash_pages(HashPair hash, std::span<const uint8_t> tensor, size_t begin, size_t end, uint8_t* out) {
    Message<1 + kPage> a(0), b(0);
    Digest unused;
    const auto set = [&](Message<1 + kPage>& message, size_t page) {
        const size_t size = std::min(kPage, tensor.size() - page * kPage);
        std::memcpy(message.bytes + 1, tensor.data() + page * kPage, size);
        std::memset(message.bytes + 1 + size, 0, kPage - size);
    };
    for (size_t page = begin; page < end; page += 2, out += 2 * kDigest) {
        const bool pair = page + 1 < end;
        set(a, page);
        if (pair) set(b, page + 1);
        hash(a.bytes, b.bytes, a.kBlocks, out, pair ? out + kDigest : unused.data());
    }
}

// The nodes above `count` neighbours, in their place; where the right one is missing, it is `padding`.
size_t hash_nodes(HashPair hash, uint8_t* level, size_t count, const Digest& padding) {
    Message<1 + 2 * kDigest> a(1), b(1);
    Digest unused;
    const auto set = [&](Message<1 + 2 * kDigest>& message, size_t node) {
        std::memcpy(message.bytes + 1, level + 2 * node * kDigest, kDigest);
        const uint8_t* right = 2 * node + 1 < count ? level + (2 * node + 1) * kDigest : padding.data();
        std::memcpy(message.bytes + 1 + kDigest, right, kDigest);
    };
    const size_t nodes = (count + 1) / 2;
    for (size_t node = 0; node < nodes; node += 2) {
        const bool pair = node + 1 < nodes;
        set(a, node);
        if (pair) set(b, node + 1);
        hash(a.bytes, b.bytes, a.kBlocks, level + node * kDigest, pair ? level + (node + 1) * kDigest : unused.data());
    }
    return nodes;
}

using Paddings = std::array<Digest, 64>;

// By height: the root of a subtree of padding alone.
Paddings make_paddings(HashPair hash) {
    Paddings paddings{};
    for (size_t height = 1; height < paddings.size(); ++height) {
        uint8_t both[2 * kDigest];
        std::memcpy(both, paddings[height - 1].data(), kDigest);
        hash_nodes(hash, both, 1, paddings[height - 1]);
        std::memcpy(paddings[height].data(), both, kDigest);
    }
    return paddings;
}

size_t page_count(std::span<const uint8_t> tensor) {
    if (tensor.empty()) throw std::invalid_argument("a Merkle tree needs at least one leaf");
    return (tensor.size() + kPage - 1) / kPage;
}

}  // namespace

std::string tensor_leaves(std::span<const uint8_t> tensor, int threads) {
    const size_t pages = page_count(tensor);
    const HashPair hash = best_hash_pair();
    std::string leaves(pages * kDigest, '\0');
    auto* const out = reinterpret_cast<uint8_t*>(leaves.data());
    parallel((pages + kPiece - 1) / kPiece, threads, [&](int64_t part, int) {
        const size_t begin = static_cast<size_t>(part) * kPiece;
        hash_pages(hash, tensor, begin, std::min(pages, begin + kPiece), out + begin * kDigest);
    });
    return leaves;
}

std::vector<Digest> tensor_roots(const std::vector<std::span<const uint8_t>>& tensors, int threads) {
    const HashPair hash = best_hash_pair();
    static const Paddings paddings = make_paddings(hash);
    struct Piece {
        std::span<const uint8_t> tensor;
        size_t begin, end;  // pages
    };
    std::vector<Piece> pieces;
    for (const auto& tensor : tensors) {
        const size_t pages = page_count(tensor);
        for (size_t begin = 0; begin < pages; begin += kPiece) pieces.push_back({tensor, begin, std::min(pages, begin + kPiece)});
    }
    std::vector<uint8_t> tops(pieces.size() * kDigest);
    parallel(pieces.size(), threads, [&](int64_t part, int) {
        const auto [tensor, begin, end] = pieces[static_cast<size_t>(part)];
        uint8_t level[kPiece * kDigest];
        hash_pages(hash, tensor, begin, end, level);
        size_t count = end - begin;
        const bool alone = page_count(tensor) <= kPiece;  // a smaller tree
        for (size_t height = 0; alone ? count > 1 : height < kPieceLevels; ++height) {
            count = hash_nodes(hash, level, count, paddings[height]);
        }
        std::memcpy(tops.data() + static_cast<size_t>(part) * kDigest, level, kDigest);
    });
    std::vector<Digest> roots;
    uint8_t* top = tops.data();
    for (const auto& tensor : tensors) {
        const size_t own = (page_count(tensor) + kPiece - 1) / kPiece;
        size_t count = own;
        for (size_t height = kPieceLevels; count > 1; ++height) count = hash_nodes(hash, top, count, paddings[height]);
        std::memcpy(roots.emplace_back().data(), top, kDigest);
        top += own * kDigest;
    }
    return roots;
}

}  // namespace crowdtrain
