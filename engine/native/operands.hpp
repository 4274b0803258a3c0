// A nest's operands, ready to be loaded tile by tile.
#pragma once

#include <optional>
#include <vector>

#include "access.hpp"
#include "body.hpp"
#include "pattern.hpp"

namespace crowdtrain {

constexpr int64_t kTileWords = 1024;  // of each operand: a tile with its intermediate results stays in the nearest caches

struct Operands {
    explicit Operands(const Nest& nest);

    int count() const { return static_cast<int>(accesses.size()); }
    // The tensor that operand `o` reads; null for an index.
    const uint32_t* tensor(int o, const uint32_t* const* values) const {
        return accesses[o].is_index() ? nullptr : values[accesses[o].value()];
    }

    std::vector<Access> accesses;
    std::vector<Walk> outer, fold;  // over the outer loops, over the fold
    std::vector<std::optional<Pattern>> patterns;
};

inline void run_pass(const BodyPass& pass, uint32_t* const* slots, uint32_t* out, int64_t count) {
    pass.pass(out, slots[pass.in[0]], slots[pass.in[1]], slots[pass.in[2]], count);
}

// Work for one element and fold iteration, in words touched.
inline int64_t cost_of(const Nest& nest, const Body& body) {
    return static_cast<int64_t>(nest.operands.size() + body.once.size() + body.before.size() + body.fold.size() + 1);
}

}  // namespace crowdtrain
