// Nests with a fold: tiles of [fold iterations][outputs], each output strictly in order.
#pragma once

#include <vector>

#include "nest_plan.hpp"
#include "operands.hpp"

namespace crowdtrain {

class Fold final : public NestPlan {
public:
    Fold(const Nest& nest, const Kernels& kernels);
    const char* kind() const override { return body_.known ? "known fold" : "fold"; }
    void run(const uint32_t* const* values, uint32_t* out, Workers& workers) const override;

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

    bool read_before(int slot) const;
    void run_outputs(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end, uint32_t* scratch) const;
    void load(Tile& tile, const uint32_t* const* values) const;
    void load_by_output(Tile& tile, int operand, const uint32_t* tensor) const;
    void load_row(Tile& tile, int operand, const uint32_t* tensor, const Position& at, int64_t f) const;
    void load_by_fold(Tile& tile, int operand, const uint32_t* tensor) const;
    void run_passes(const std::vector<BodyPass>& passes, const Tile& tile, int64_t folds) const;
    void fold(const Tile& tile) const;

    const Nest& nest_;
    const Kernels& kernels_;
    Operands operands_;
    Body body_;
    std::vector<Load> loads_;
    int64_t outputs_ = 0;  // of a tile, at most
    int64_t folds_ = 0;    // of a tile, at most
};

}  // namespace crowdtrain
