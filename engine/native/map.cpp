#include "map.hpp"

#include <algorithm>

namespace crowdtrain {

Map::Map(const Nest& nest, const Kernels& kernels)
    : nest_(nest), kernels_(kernels), operands_(nest), body_(nest, kernels) {}

bool Map::reads_word_by_word(int value) const {
    for (int o = 0; o < operands_.count(); ++o) {
        const Access& access = operands_.accesses[o];
        if (access.is_index() || access.value() != value || !body_.needed[o]) continue;
        const bool whole = access.contiguous(operands_.outer[o]) && access.origin()[0] == 0;
        if (!whole || operands_.outer[o].count != nest_.words()) return false;
    }
    return true;
}

void Map::run(const uint32_t* const* values, uint32_t* out, Workers& workers) const {
    workers.split(words(), kTileWords, cost(), [&](int64_t begin, int64_t end, int thread) {
        const int64_t tile = std::min(kTileWords, end - begin);
        Frame frame = make_frame(workers.scratch[thread].words(scratch_words(tile)), tile);
        for (int64_t start = begin; start < end; start += tile) {
            run_tile(frame, values, out, start, std::min(tile, end - start), tile);
        }
    });
}

Map::Frame Map::make_frame(uint32_t* scratch, int64_t tile) const {
    Frame frame;
    for (int slot = 0; slot < body_.slots; ++slot) frame.slots.push_back(scratch + slot * tile);
    for (size_t i = 0; i < nest_.immediates.size(); ++i) {
        kernels_.fill(frame.slots[operands_.count() + i], nest_.immediates[i], tile);
    }
    return frame;
}

void Map::run_tile(Frame& frame, const uint32_t* const* values, uint32_t* out, int64_t start, int64_t count,
                   int64_t tile) const {
    std::vector<uint32_t*>& slots = frame.slots;
    for (int o = 0; o < operands_.count(); ++o) {
        if (!body_.needed[o]) continue;
        const Access& access = operands_.accesses[o];
        const Walk& walk = operands_.outer[o];
        const uint32_t* tensor = operands_.tensor(o, values);
        const bool constant = walk.loops.empty() && access.gathers().empty();
        if (constant && frame.constants_loaded) continue;
        if (access.contiguous(walk)) {
            slots[o] = const_cast<uint32_t*>(tensor + access.origin()[0] + start);  // never written
        } else if (operands_.patterns[o]) {
            operands_.patterns[o]->load(kernels_, slots[o], tensor, start, count, 0);
        } else {
            access.load(kernels_, slots[o], tensor, walk, access.origin(), start, constant ? tile : count, slots.data());
        }
    }
    frame.constants_loaded = true;
    const size_t passes = body_.before.size();
    for (size_t i = 0; i + 1 < passes; ++i) run_pass(body_.before[i], slots.data(), slots[body_.before[i].out], count);
    if (passes > 0) {
        run_pass(body_.before.back(), slots.data(), out + start, count);
    } else {
        std::copy_n(slots[body_.result], count, out + start);
    }
}

bool MapGroup::accepts(const Map& map) const {
    if (maps_.empty()) return true;
    if (map.words() != maps_.front().map->words()) return false;
    return std::all_of(maps_.begin(), maps_.end(), [&](const Member& m) { return map.reads_word_by_word(m.value); });
}

void MapGroup::add(const Map& map, int value) { maps_.push_back({&map, value}); }

void MapGroup::run(const std::vector<uint32_t*>& values, Workers& workers) const {
    int64_t cost = 0;
    for (const Member& m : maps_) cost += m.map->cost();
    workers.split(maps_.front().map->words(), kTileWords, cost, [&](int64_t begin, int64_t end, int thread) {
        const int64_t tile = std::min(kTileWords, end - begin);
        int64_t scratch_words = 0;
        for (const Member& m : maps_) scratch_words += m.map->scratch_words(tile) + tile;
        uint32_t* scratch = workers.scratch[thread].words(scratch_words);
        std::vector<uint32_t*> mine(values);
        std::vector<std::pair<int, uint32_t*>> local;  // values that are kept for a tile only
        std::vector<Map::Frame> frames;
        for (const Member& m : maps_) {
            frames.push_back(m.map->make_frame(scratch, tile));
            scratch += m.map->scratch_words(tile);
            if (values[m.value]) continue;
            local.emplace_back(m.value, scratch);
            scratch += tile;
        }
        for (int64_t start = begin; start < end; start += tile) {
            for (const auto& [value, words] : local) mine[value] = words - start;  // so that word `start` is at its begin
            for (size_t i = 0; i < maps_.size(); ++i) {
                maps_[i].map->run_tile(frames[i], mine.data(), mine[maps_[i].value], start, std::min(tile, end - start), tile);
            }
        }
    });
}

}  // namespace crowdtrain
