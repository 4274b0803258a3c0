// Any nest, its body run as passes over tiles of words that fit in the first-level cache.
#pragma once

#include <optional>
#include <vector>

#include "access.hpp"
#include "body.hpp"
#include "nest_plan.hpp"
#include "pattern.hpp"

namespace crowdtrain {

// A nest's operands, with their walks over the outer loops and over the fold.
struct Operands {
    explicit Operands(const Nest& nest);

    std::vector<Access> accesses;
    std::vector<Walk> outer, fold;
    std::vector<std::optional<Pattern>> patterns;
};

// Nests without fold.
class Map final : public NestPlan {
public:
    Map(const Nest& nest, const Kernels& kernels);
    const char* kind() const override { return "map"; }
    void run(const uint32_t* const* values, uint32_t* out, Workers& workers) const override;

private:
    void run_range(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end, uint32_t* scratch) const;

    const Nest& nest_;
    const Kernels& kernels_;
    Operands operands_;
    Body body_;
};

// Nests with a fold: tiles of [fold iterations][outputs], each output strictly in order.
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
    void load_by_fold(Tile& tile, int operand, const uint32_t* tensor) const;
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
