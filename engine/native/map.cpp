#include "map.hpp"

#include <algorithm>

namespace crowdtrain {

Map::Map(const Nest& nest, const Kernels& kernels)
    : RowPlan(nest), kernels_(kernels), operands_(nest), body_(nest, kernels) {}

bool Map::reads_word_by_word(int value) const {
    for (int o = 0; o < operands_.count(); ++o) {
        const Operand& operand = nest_.operands[o];
        if (operand.is_index() || operand.value != value || !body_.needed[o]) continue;
        if (operand.words() != nest_.words() || !reads_by_rows(nest_, operand, nest_.words())) return false;
    }
    return true;
}

void Map::run_part(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end, uint32_t* scratch) const {
    const int64_t tile = std::min(kMapTile, end - begin);
    std::vector<uint32_t*> slots;
    for (int slot = 0; slot < body_.slots; ++slot) slots.push_back(scratch + slot * tile);
    for (size_t i = 0; i < nest_.immediates.size(); ++i) {
        kernels_.fill(slots[operands_.count() + i], nest_.immediates[i], tile);
    }
    for (int64_t start = begin; start < end; start += tile) {
        const int64_t count = std::min(tile, end - start);
        load(slots, values, start, count, tile, start == begin);
        const size_t passes = body_.before.size();
        for (size_t i = 0; i + 1 < passes; ++i) run_pass(body_.before[i], slots.data(), slots[body_.before[i].out], count);
        if (passes > 0) {
            run_pass(body_.before.back(), slots.data(), out + start, count);
        } else {
            std::copy_n(slots[body_.result], count, out + start);
        }
    }
}

// Brings operands' words start … start + count - 1 into slots of `tile` words, or lets slots point at them.
void Map::load(std::vector<uint32_t*>& slots, const uint32_t* const* values, int64_t start, int64_t count, int64_t tile,
               bool first) const {
    for (int o = 0; o < operands_.count(); ++o) {
        if (!body_.needed[o]) continue;
        const Access& access = operands_.accesses[o];
        const Walk& walk = operands_.outer[o];
        const uint32_t* tensor = operands_.tensor(o, values);
        const bool constant = walk.loops.empty() && access.gathers().empty();
        if (constant && !first) continue;  // still there
        if (access.contiguous(walk)) {
            slots[o] = const_cast<uint32_t*>(tensor + access.origin()[0] + start);  // never written
        } else if (operands_.patterns[o]) {
            operands_.patterns[o]->load(kernels_, slots[o], tensor, start, count, 0);
        } else {
            access.load(kernels_, slots[o], tensor, walk, access.origin(), start, constant ? tile : count, slots.data());
        }
    }
}

}  // namespace crowdtrain
