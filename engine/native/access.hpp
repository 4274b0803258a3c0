// Where an operand reads: its access compiled for loading many words at once.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels.hpp"
#include "program.hpp"

namespace crowdtrain {

// For each dimension of an access, the affine form's value at some loop indices (before any division).
using Position = std::array<int64_t, kMaxRank>;

// Some of a nest's loops, run as one loop with a flat row-major index. Neighbouring loops are merged into one where the
// access steps through them evenly.
struct Walk {
    struct Loop {
        int64_t extent;
        Position step;
    };
    std::vector<Loop> loops;  // outermost first; none where the group has a single index
    int64_t count = 1;        // indices of the group
    int dimensions = 0;       // of positions that are used

    // Adds to `at` what index `flat` of the group contributes.
    void move(Position& at, int64_t flat) const;
};

// A place in a walk that moves on.
class Cursor {
public:
    // At index `flat` of the walk, the other loops being where `base` says. The walk must outlive the cursor.
    Cursor(const Walk& walk, const Position& base, int64_t flat);

    const Position& at() const { return at_; }
    // Indices from here to the end of the innermost loop, which are evenly spaced.
    int64_t left() const { return left_; }
    // Moves on by `count` indices, at most left().
    void advance(int64_t count);
    // Rows of the innermost loop from here to the end of the loop around it; 0 within a row.
    int64_t whole_rows() const;
    // Moves on by `rows` rows, at most whole_rows().
    void advance_rows(int64_t rows);

private:
    void move(int64_t count, const Walk::Loop& loop);
    void carry(size_t loop, int64_t count);  // adds `count` to the index of the loop before `loop`

    const Walk& walk_;
    Position at_;
    int64_t left_;
    std::array<int64_t, kMaxLoops> index_{};  // of all loops but the innermost
};

// One dimension of the tensor read. An access that is never out of range has a single one, over the flat tensor.
struct Dimension {
    int64_t size;
    int64_t stride;  // words between two positions
    Mode mode;
    int64_t divisor;
    int64_t limit;   // size * divisor: in range is an affine form from 0 to below it
    int gather;  // for Mode::gather: number of the operand that gives the position
    int64_t offset;
    std::array<int64_t, kMaxLoops> coefficients;
};

// The output as an operand would read it.
Operand output_of(const Nest& nest);

// Whether rows of the output need only rows of the tensor: when both are cut into `rows` equal stretches of words, each of
// the output reads nothing of the tensor but the stretch of the same number. May say no where the answer is yes.
bool reads_by_rows(const Nest& nest, const Operand& operand, int64_t rows);

// Smallest and largest value of an axis's affine form.
std::pair<int64_t, int64_t> affine_range(const Nest& nest, const Axis& axis);

class Access {
public:
    Access(const Nest& nest, const Operand& operand);

    Walk walk(const std::vector<int>& loops) const;
    Position origin() const;  // with all loops at 0

    bool is_index() const { return is_index_; }
    int value() const { return value_; }
    // Whether every read is within the tensor and its position a linear function of the loops.
    bool inside() const { return inside_; }
    const std::vector<int>& gathers() const { return gathers_; }  // the operands that give positions

    // Words between two neighbours along the walk's innermost loop, where that is a constant; else a large number.
    int64_t stride(const Walk& walk) const;

    // Whether the words along `walk` lie one after another in memory, from tensor + base[0] on.
    bool contiguous(const Walk& walk) const;

    // Whether its words along the walk's innermost loop lie one after another, or are the same word.
    bool in_rows(const Walk& walk) const;

    // Whether its words along the walk's innermost loop are columns of a tensor whose rows the loop around it goes along.
    bool in_columns(const Walk& walk) const;

    // Writes to `out` the operand's words at indices start … start + count - 1 of `walk`, the other loops being where
    // `base` says. `operands[o]` holds the words of an operand o that this one gathers by, for the same indices.
    void load(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk, const Position& base,
              int64_t start, int64_t count, const uint32_t* const* operands) const;

    // The same, but words that are out of range are left as they are. All dimensions are affine.
    void copy(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk, const Position& base,
              int64_t start, int64_t count) const;

private:
    void load_inside(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk, int64_t base,
                     int64_t start, int64_t count) const;
    void load_bounded(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk,
                      const Position& base, int64_t start, int64_t count) const;
    std::pair<int64_t, int64_t> in_range(const Position& at, const Position& step, int64_t count) const;
    void load_row(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Position& at,
                  const Position& step, int64_t count) const;
    void load_gathered(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk,
                       const Position& base, int64_t start, int64_t count, const uint32_t* const* operands) const;
    void load_elements(uint32_t* out, const uint32_t* tensor, const Position& at, const Position& step, int64_t count,
                       const uint32_t* const* operands, int64_t first) const;

    const Nest& nest_;
    std::vector<Dimension> dimensions_;
    std::vector<int> gathers_;
    int value_ = 0;
    uint32_t fill_ = 0;
    bool is_index_ = false;
    bool inside_ = false;
};

// Where the words of an access that is inside are, relative to its base.
void list_offsets(const Kernels& kernels, const Walk& walk, int64_t first, int64_t count, int32_t* offsets);

}  // namespace crowdtrain
