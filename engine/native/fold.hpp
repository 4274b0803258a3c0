// Nests with a fold: tiles of [fold iterations][outputs], each output strictly in order. Where operands lie along the fold,
// they are read line by line instead, and transposed in registers.
#pragma once

#include <algorithm>
#include <vector>

#include "operands.hpp"
#include "row_plan.hpp"

namespace crowdtrain {

constexpr int64_t kLineWords = 128;  // fold iterations of a line that are worked on at a time

class Fold final : public RowPlan {
public:
    Fold(const Nest& nest, const Kernels& kernels);
    const char* kind() const override { return body_.known ? "known fold" : "fold"; }
    int64_t cost() const override { return cost_of(nest_, body_) * nest_.fold_length(); }
    int64_t grain() const override { return kernels_.lanes; }
    int64_t scratch_words() const override {
        return (body_.slots + 1) * std::max(kTileWords, most_lines() * kLineWords);
    }
    void run_part(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end,
                  uint32_t* scratch) const override;

private:
    // How an operand comes into a tile.
    enum class Load : uint8_t {
        none,       // not needed
        in_place,   // read where it is
        once,       // a row of outputs, the same for all fold iterations
        by_output,  // a row of outputs for each fold iteration
        by_fold,    // a row of fold iterations for each output, then transposed
    };
    struct Tile;
    struct LineReader;
    struct Lines;

    bool read_before(int slot) const;
    bool lies_along_fold() const;
    void run_columns(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end, uint32_t* scratch) const;
    void run_lines(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end, uint32_t* scratch) const;
    int64_t most_lines() const { return 2 * kernels_.lanes; }  // of which each is an output's
    void make_lines(Lines& lines) const;
    void load_lines(Lines& lines, const LineReader& reader) const;
    void list_lines(Lines& lines, int slot, std::vector<const uint32_t*>& list) const;
    void load(Tile& tile, const uint32_t* const* values) const;
    void load_by_output(Tile& tile, int operand, const uint32_t* tensor) const;
    void load_row(Tile& tile, int operand, const uint32_t* tensor, const Position& at, int64_t f) const;
    void load_by_fold(Tile& tile, int operand, const uint32_t* tensor) const;
    void run_passes(const std::vector<BodyPass>& passes, const Tile& tile, int64_t folds) const;
    void fold(const Tile& tile) const;

    const Kernels& kernels_;
    Operands operands_;
    Body body_;
    std::vector<Load> loads_;
    bool by_lines_ = false;
    int64_t outputs_ = 0;  // of a tile, at most
    int64_t folds_ = 0;    // of a tile, at most
};

}  // namespace crowdtrain
