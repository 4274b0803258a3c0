// Nests without fold: the body as passes over tiles of words.
#pragma once

#include "operands.hpp"
#include "row_plan.hpp"

namespace crowdtrain {

constexpr int64_t kMapTile = 512;  // words: a tile of every slot stays in the nearest cache

// A tile is some rows of the output, or a part of one. Rows are as long as operands go on evenly within them, so that most
// operands are read by passes where they are: one after another, the same word for all of a row, or the same row again.
class Map final : public RowPlan {
public:
    Map(const Nest& nest, const Kernels& kernels);
    const char* kind() const override { return "map"; }
    int64_t cost() const override { return cost_of(nest_, body_); }
    int64_t grain() const override { return tile_words(); }
    int64_t scratch_words() const override { return body_.slots * tile_words(); }
    void run_part(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end,
                  uint32_t* scratch) const override;

    // Whether word i of the output depends on no word of `value` but word i.
    bool reads_word_by_word(int value) const;

private:
    // How an operand comes to the passes.
    enum class Load : uint8_t {
        none,        // not needed
        constant,    // one word for all outputs
        in_place,    // read where it is
        transposed,  // rows of the output are columns of the tensor
        copied,      // to a slot, word by word
    };
    struct Reader;
    struct Tile;

    int64_t tile_words() const { return columns_ <= kMapTile ? most_rows_ * columns_ : kMapTile; }
    Load choose_load(int operand) const;
    void load(Tile& tile, const Reader& reader) const;
    void transpose(const Tile& tile, const Reader& reader, uint32_t* to) const;
    void run_body(Tile& tile) const;

    const Kernels& kernels_;
    Operands operands_;
    Body body_;
    int64_t columns_;    // words of a row
    int64_t most_rows_;  // of a tile
    std::vector<Load> loads_;
};

}  // namespace crowdtrain
