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
    Operands(const Nest& nest, const Kernels& kernels);

    int count() const { return static_cast<int>(accesses.size()); }
    // The tensor that operand `o` reads; null for an index.
    const uint32_t* tensor(int o, const uint32_t* const* values) const {
        return accesses[o].is_index() ? nullptr : values[accesses[o].value()];
    }

    // Whether an operand that is needed gathers by operand `o`.
    bool gathered_by(int o, const Body& body) const;

    std::vector<Access> accesses;
    std::vector<Walk> outer, fold;  // over the outer loops, over the fold
    std::vector<std::optional<Pattern>> patterns;
};

// A pass over `rows` rows of `count` words. `sources` tells for each slot where its words are.
inline void run_pass(const BodyPass& pass, const Source* sources, uint32_t* out, int64_t rows, int64_t count) {
    const Source in[] = {sources[pass.in[0]], sources[pass.in[1]], sources[pass.in[2]]};
    const auto is_even = [&](const Source& source) { return source.row == (source.same ? 0 : count); };
    if (is_even(in[0]) && is_even(in[1]) && is_even(in[2])) {
        pass.pass(out, in, 1, rows * count);
    } else {
        pass.pass(out, in, rows, count);
    }
}

// The same over one row, from slots that are buffers of words.
inline void run_pass(const BodyPass& pass, uint32_t* const* slots, uint32_t* out, int64_t count) {
    const Source in[] = {{slots[pass.in[0]], 0, false}, {slots[pass.in[1]], 0, false}, {slots[pass.in[2]], 0, false}};
    pass.pass(out, in, 1, count);
}

// Work for one element and fold iteration, in words touched.
inline int64_t cost_of(const Nest& nest, const Body& body) {
    return static_cast<int64_t>(nest.operands.size() + body.once.size() + body.before.size() + body.fold.size() + 1);
}

}  // namespace crowdtrain
