// Maps that put pieces together: the `or` of reads of which at each place at most one is in range, and the others give 0.
// Concatenations, and gradients of slices. Each piece is copied to where it belongs.
#pragma once

#include <memory>

#include "operands.hpp"
#include "row_plan.hpp"

namespace crowdtrain {

class Union final : public RowPlan {
public:
    // Null where the nest is none.
    static std::unique_ptr<Union> make(const Nest& nest, const Kernels& kernels);

    const char* kind() const override { return "union"; }
    int64_t cost() const override { return 2; }
    int64_t grain() const override { return kTileWords; }
    int64_t scratch_words() const override { return 0; }
    void run_part(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end,
                  uint32_t* scratch) const override;

private:
    Union(const Nest& nest, const Kernels& kernels, bool covers);

    const Kernels& kernels_;
    Operands operands_;
    bool covers_;  // the pieces leave no place empty
};

}  // namespace crowdtrain
