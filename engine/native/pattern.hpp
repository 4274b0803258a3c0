// Where an operand reads, listed word by word for the innermost outer loops and the fold, the outermost loops only
// moving the whole. It serves operands whose rows are short, and those that are often out of range.
#pragma once

#include <optional>
#include <vector>

#include "access.hpp"

namespace crowdtrain {

class Pattern {
public:
    // Nothing where the operand has no short pattern, or is loaded faster by rows.
    static std::optional<Pattern> make(const Nest& nest, const Operand& operand, const Kernels& kernels);

    // Writes the operand's words for outputs start … start + count - 1 at fold iteration `fold`.
    void load(uint32_t* out, const uint32_t* tensor, int64_t start, int64_t count, int64_t fold) const;

private:
    struct Outer {  // a dimension that only the outermost loops move
        const Axis* axis;
        int64_t stride;
    };

    Pattern(const Nest& nest, const Operand& operand, const Kernels& kernels, int first_inner);

    bool moved_inside(const Axis& axis) const;
    void list(const std::vector<int64_t>& strides);
    void list_windows();
    Windows windows_of(const int32_t* offsets, int32_t last);
    // Where plane number `plane` starts in the tensor, or -1 if all of it is out of range.
    int64_t base(int64_t plane) const;

    const Nest& nest_;
    const Operand& operand_;
    const Kernels& kernels_;
    int first_inner_;              // loops from here on, and those of the fold, are listed
    int64_t plane_ = 1;            // outputs listed
    std::vector<Outer> outer_;
    std::vector<int32_t> table_;   // [fold][plane]: offset from the base, -1 out of range; of an index, its word
    std::vector<Windows> windows_;  // [fold][whole vectors of a plane]
    int windows_used_ = 0;          // of each, at most
};

}  // namespace crowdtrain
