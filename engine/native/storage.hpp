// Where the values of a step are kept: what is no longer needed makes room, and a new state may take the old one's place.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "program.hpp"

namespace crowdtrain {

// Nests that run together: one, or several that read of one another only row by row.
struct Group {
    std::vector<int> nests;
    int64_t rows = 0;  // of each output, where there are several
};

struct Storage {
    enum class Place : uint8_t {
        nowhere,  // not computed: nothing depends on it
        state,    // a state tensor's array
        data,     // a data tensor's array
        arena,    // words of the plan's own
        tile,     // used only within its group
    };
    struct Where {
        Place place = Place::nowhere;
        int64_t at = 0;  // number of the tensor, or first word in the arena
    };
    std::vector<Where> values;
    int64_t arena_words = 0;

    bool kept_in(int value, int state) const {
        return values[value].place == Place::state && values[value].at == state;
    }
};

// By nest: whether the next state or a log depends on it.
std::vector<bool> live_nests(const Program& program);

// `word_by_word(nest, value)` says whether word i of a nest's output needs no word of `value` but word i.
Storage plan_storage(const Program& program, const std::vector<Group>& groups,
                     const std::function<bool(int nest, int value)>& word_by_word);

}  // namespace crowdtrain
