// Nests without fold: the body as passes over tiles of words.
#pragma once

#include "operands.hpp"
#include "row_plan.hpp"

namespace crowdtrain {

constexpr int64_t kMapTile = 512;  // words: a tile of every slot stays in the nearest cache

class Map final : public RowPlan {
public:
    Map(const Nest& nest, const Kernels& kernels);
    const char* kind() const override { return "map"; }
    int64_t cost() const override { return cost_of(nest_, body_); }
    int64_t grain() const override { return kMapTile; }
    int64_t scratch_words() const override { return body_.slots * kMapTile; }
    void run_part(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end,
                  uint32_t* scratch) const override;

    // Whether word i of the output depends on no word of `value` but word i.
    bool reads_word_by_word(int value) const;

private:
    void load(std::vector<uint32_t*>& slots, const uint32_t* const* values, int64_t start, int64_t count, int64_t tile,
              bool first) const;

    const Kernels& kernels_;
    Operands operands_;
    Body body_;
};

}  // namespace crowdtrain
