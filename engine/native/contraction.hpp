// Nests that multiply and add: out[b, m, n] = fold over k of fma(x[b, m, k], y[b, n, k], acc). Matrix products, and
// convolutions with both their gradients, whatever the axes: only the copying into panels knows where words come from.
//
// Each output is one chain of fma in ascending k. Splitting k into blocks only reloads the accumulator.
#pragma once

#include <memory>
#include <vector>

#include "access.hpp"
#include "body.hpp"
#include "nest_plan.hpp"

namespace crowdtrain {

class Contraction final : public NestPlan {
public:
    // Null where the nest is none, or another plan suits it better.
    static std::unique_ptr<Contraction> make(const Nest& nest, const Kernels& kernels);

    const char* kind() const override { return "contraction"; }
    void run(const uint32_t* const* values, uint32_t* out, Workers& workers) const override;

private:
    // The loops that run over the batch, the rows (m), the columns (n) and the fold (k).
    struct Loops {
        std::vector<int> batch, rows, columns, fold;
    };
    // One of the two operands multiplied.
    struct Factor {
        Factor(const Nest& nest, const Operand& operand, const Loops& loops, const std::vector<int>& own_loops);

        Access access;
        Walk batch, own, fold;  // own: over rows or columns
        bool along_fold;        // whether neighbours in memory are neighbours in k
    };
    struct Packing;
    struct Block;

    Contraction(const Nest& nest, const Kernels& kernels, const Loops& loops, const Operand& rows,
                const Operand& columns);

    void run_block(Block& block) const;
    void pack(const Block& block, const Packing& packing, int64_t first, int64_t count) const;
    void pack_along(const Block& block, const Packing& packing, int64_t first, int64_t count) const;
    void pack_across(const Block& block, const Packing& packing, int64_t first, int64_t count) const;
    void run_tiles(const Block& block, int64_t rows, int64_t columns) const;
    void run_tile(const Block& block, TilePass pass, const TileSide& row_side, const TileSide& column_side,
                  int64_t row, int64_t rows, int64_t column, int64_t columns) const;

    int64_t tile_columns() const { return kernels_.tile_vectors * kernels_.lanes; }
    int64_t panel_words(int64_t width) const { return depth_ * width + kernels_.lanes; }

    const Kernels& kernels_;
    const int64_t length_;  // of the fold
    const uint32_t init_;
    Factor rows_, columns_;
    Access out_;
    Walk out_batch_, out_rows_, out_columns_;
    int64_t depth_, block_rows_, block_columns_;  // of what is packed at a time, at most
};

}  // namespace crowdtrain
