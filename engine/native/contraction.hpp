// Nests that multiply and add: out[b, m, n] = fold over k of fma(x[b, m, k], y[b, n, k], acc). Matrix products, and
// convolutions with both their gradients, whatever the axes: only the factors know where words come from.
//
// Each output is one chain of fma in ascending k. Splitting k into blocks only reloads the accumulator.
#pragma once

#include <memory>

#include "access.hpp"
#include "factor.hpp"
#include "nest_plan.hpp"

namespace crowdtrain {

class Contraction final : public NestPlan {
public:
    // Null where the nest is none, or another plan suits it better.
    static std::unique_ptr<Contraction> make(const Nest& nest, const Kernels& kernels);

    const char* kind() const override { return "contraction"; }
    void run(const uint32_t* const* values, uint32_t* out, Workers& workers) const override;

private:
    struct Block;
    struct Tile;
    struct Buffers;

    Contraction(const Nest& nest, const Kernels& kernels, const ContractionLoops& loops, Factor rows, Factor columns);

    std::pair<int64_t, int64_t> cut(int64_t parts, int64_t row_tiles, int64_t column_tiles) const;
    void pack_columns(const uint32_t* tensor, uint32_t* packed, Workers& workers) const;
    void run_block(Block& block) const;
    void run_rows(Block& block, int64_t row, int64_t rows, int64_t column, int64_t columns) const;
    void run_tiles(const Block& block, const uint32_t* column_panels, int64_t row, int64_t rows, int64_t columns) const;
    void run_tile(const Block& block, const Tile& tile) const;
    void copy_in(const Block& block, const Tile& tile, int64_t row_words) const;
    void copy_out(const Block& block, const Tile& tile, int64_t row_words) const;

    const Kernels& kernels_;
    const int64_t length_;  // of the fold
    const uint32_t init_;
    const Factor rows_, columns_;
    const Access out_;
    const Walk out_batch_, out_rows_, out_columns_;
    const int64_t tile_rows_, tile_columns_;
    // Sizes of what is worked on at a time.
    int64_t depth_;          // k
    int64_t block_rows_;     // rows packed
    int64_t block_columns_;  // columns packed
    int64_t outer_rows_;     // rows for which the accumulators are kept
    bool rows_in_place_;     // rows are read where they are
    bool share_columns_;   // columns are packed once for all k and all threads
    bool keep_columns_;      // columns are packed once for all k
    bool keep_tiles_;        // accumulators stay in a buffer until the fold is done: their places in the output are far apart
};

}  // namespace crowdtrain
