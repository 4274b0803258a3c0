// One of the two operands that a contraction multiplies, and how its words reach the tiles.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "access.hpp"
#include "pattern.hpp"
#include "workers.hpp"

namespace crowdtrain {

// The loops of a contraction: over the batch, over the rows (m) and the columns (n) of each product, over the fold (k).
struct ContractionLoops {
    std::vector<int> batch, rows, columns, fold;
};

// Panels of words: [k][width] each, `stride` words apart. The last may be narrower: what is left, up to a multiple
// of `unit`, filled up with zeros.
struct Panels {
    uint32_t* words;
    int64_t width, unit, stride;
};

class Factor {
public:
    // `own` are the loops over its rows or columns. The nest must outlive the factor.
    Factor(const Nest& nest, const Operand& operand, const ContractionLoops& loops, const std::vector<int>& own,
           const Kernels& kernels);

    int value() const { return value_; }
    int64_t count() const { return own_.count; }  // of rows or columns
    bool overlapping() const { return overlapping_; }  // whether most words are read several times
    bool along_fold() const { return along_fold_; }    // whether neighbours in memory are neighbours in k
    bool inside() const { return access_.inside(); }   // so that it can be read in place

    // Words of the copy that is read instead of the tensor; 0 if there is none. See `Stage`.
    int64_t stage_words() const { return stage_ ? stage_->walk.count : 0; }
    void fill_stage(const Kernels& kernels, const uint32_t* tensor, uint32_t* stage, Workers& workers) const;

    // Length of the stretches of k whose words stand together in memory; 1 if they do not.
    int64_t run() const;

    // Where the batch index `b` starts.
    Position base(int64_t b) const;
    // Of a factor that is inside: offsets of rows or columns, and of k, from base()[0].
    void own_offsets(const Kernels& kernels, int64_t first, int64_t count, int32_t* offsets) const;
    void fold_offsets(const Kernels& kernels, int64_t first, int64_t count, int32_t* offsets) const;

    // Copies rows or columns first … first + count - 1 at k … k + depth - 1 into panels. `source` is the tensor or its
    // stage, `lines` a buffer of max(count, panel width * depth) words.
    void pack(const Kernels& kernels, const uint32_t* source, const Position& base, int64_t first, int64_t count,
              int64_t k, int64_t depth, const Panels& panels, uint32_t* lines) const;

private:
    // A tensor copied with its surroundings, so that no read is out of range: the padding of a convolution, the zeros
    // between the words of a strided one's gradient.
    struct Stage {
        std::unique_ptr<Nest> nest;  // makes the copy, with its operand
        Operand reader;              // reads it in place of the operand
        Access access;
        Walk walk;
        std::optional<Pattern> pattern;
    };

    static std::optional<Stage> make_stage(const Nest& nest, const Operand& operand, int64_t reads, const Kernels& kernels);

    void pack_along(const Kernels& kernels, const uint32_t* source, const Position& base, int64_t first, int64_t count,
                    int64_t k, int64_t depth, const Panels& panels, uint32_t* lines) const;
    void pack_across(const Kernels& kernels, const uint32_t* source, const Position& base, int64_t first,
                     int64_t count, int64_t k, int64_t depth, const Panels& panels, uint32_t* lines) const;

    int value_;
    std::optional<Stage> stage_;
    Access access_;
    Walk batch_, own_, fold_;
    bool along_fold_, overlapping_;
};

}  // namespace crowdtrain
