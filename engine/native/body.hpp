// A nest's body compiled into passes over buffers of words.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels.hpp"
#include "program.hpp"

namespace crowdtrain {

// One instruction over buffers, which are named by slots.
struct BodyPass {
    Pass pass;
    int out;
    int in[3];
};

// Where a fold's accumulator meets the rest of the body in one known step: acc <- step(acc, x, y).
struct KnownStep {
    FoldStep step;
    int x, y;  // slots
};

// A fold's body is taken apart: what is the same for all fold iterations is computed `once` for each output, what does
// not depend on the accumulator for many iterations at a time (`before`), the rest iteration by iteration (`fold`).
// Without a fold, all is `before`. Slots: operands, immediates, the accumulator, then what passes write, reused.
struct Body {
    Body(const Nest& nest, const Kernels& kernels);

    std::vector<BodyPass> once;
    std::vector<BodyPass> before;
    std::vector<BodyPass> fold;
    std::vector<bool> steady;  // operands that are the same for all fold iterations
    std::vector<bool> needed;  // operands that the result depends on, or that one of those gathers by
    std::vector<int> advancing;  // slots that hold a row of words for each fold iteration
    int result;                // slot
    int accumulator;           // slot
    int slots;
    std::optional<KnownStep> known;
};

}  // namespace crowdtrain
