// Nests without fold: the body as passes over tiles of words.
#pragma once

#include <vector>

#include "nest_plan.hpp"
#include "operands.hpp"

namespace crowdtrain {

class Map final : public NestPlan {
public:
    Map(const Nest& nest, const Kernels& kernels);
    const char* kind() const override { return "map"; }
    void run(const uint32_t* const* values, uint32_t* out, Workers& workers) const override;

    int64_t words() const { return nest_.words(); }
    int64_t cost() const { return cost_of(nest_, body_); }
    // Whether word i of the output depends on no word of `value` but word i.
    bool reads_word_by_word(int value) const;

    // What a thread needs to run tiles one after another: slots for `tile` words each.
    struct Frame {
        std::vector<uint32_t*> slots;
        bool constants_loaded = false;
    };
    int64_t scratch_words(int64_t tile) const { return body_.slots * tile; }
    Frame make_frame(uint32_t* scratch, int64_t tile) const;
    // Computes words start … start + count - 1 of the output, count <= tile, into out[start] …
    void run_tile(Frame& frame, const uint32_t* const* values, uint32_t* out, int64_t start, int64_t count,
                  int64_t tile) const;

private:
    const Nest& nest_;
    const Kernels& kernels_;
    Operands operands_;
    Body body_;
};

// Maps of the same size run together, tile by tile, so that what one gives the next is still in the cache.
class MapGroup {
public:
    // Whether `map` may join: it reads the group's outputs only word by word, and has their size.
    bool accepts(const Map& map) const;
    void add(const Map& map, int value);
    size_t size() const { return maps_.size(); }

    // Runs all. Value v is at values[v], or where that is null, it is of the group and used by nothing else.
    // The group's other values are written there too.
    void run(const std::vector<uint32_t*>& values, Workers& workers) const;

private:
    struct Member {
        const Map* map;
        int value;
    };
    std::vector<Member> maps_;
};

}  // namespace crowdtrain
