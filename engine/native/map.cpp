#include "map.hpp"

#include <algorithm>
#include <array>

namespace crowdtrain {
namespace {

constexpr int64_t kTransposedRows = 16;  // a cache line of the tensor

}  // namespace

// An operand that moves, and where in it a tile begins.
struct Map::Reader {
    int operand;
    Load load;
    const uint32_t* tensor;
    const Walk& walk;
    Cursor cursor;

    bool row_by_row(int64_t columns) const { return walk.loops.back().extent == columns; }
    // Rows from here on that are evenly spaced, and the words from one to the next.
    int64_t even_rows(int64_t columns) const {
        return row_by_row(columns) ? std::max<int64_t>(1, cursor.whole_rows()) : cursor.left() / columns;
    }
    int64_t row_step(int64_t columns) const {
        const size_t rank = walk.loops.size();
        if (!row_by_row(columns)) return columns * walk.loops[rank - 1].step[0];
        return rank > 1 ? walk.loops[rank - 2].step[0] : 0;
    }
    void advance(int64_t rows, int64_t columns) {
        if (rows > 1 && row_by_row(columns)) {
            cursor.advance_rows(rows);
        } else {
            cursor.advance(rows * columns);
        }
    }
};

struct Map::Tile {
    const uint32_t* const* values;
    std::vector<uint32_t*> slots;
    std::vector<Source> sources;  // by slot: where its words are
    int64_t start = 0, rows = 0, columns = 0;
    uint32_t* out = nullptr;
};

Map::Map(const Nest& nest, const Kernels& kernels)
    : RowPlan(nest), kernels_(kernels), operands_(nest, kernels), body_(nest, kernels), columns_(nest.words()) {
    constexpr int64_t kLong = 8;  // vectors of a row, beside which one that is not whole does not count
    for (int o = 0; o < operands_.count(); ++o) {
        const Access& access = operands_.accesses[o];
        const Walk& walk = operands_.outer[o];
        if (!body_.needed[o] || !(access.in_rows(walk) || access.in_columns(walk))) continue;
        const int64_t extent = walk.loops.back().extent;
        if (extent % kernels.lanes == 0 || extent >= kLong * kernels.lanes) columns_ = std::min(columns_, extent);
    }
    for (int o = 0; o < operands_.count(); ++o) loads_.push_back(choose_load(o));
    const bool transposed = std::find(loads_.begin(), loads_.end(), Load::transposed) != loads_.end();
    most_rows_ = std::max(kMapTile / columns_, transposed ? kTransposedRows : 1);
}

Map::Load Map::choose_load(int o) const {
    const Access& access = operands_.accesses[o];
    const Walk& walk = operands_.outer[o];
    if (!body_.needed[o]) return Load::none;
    if (operands_.gathered_by(o, body_) || !access.gathers().empty()) return Load::copied;
    if (walk.loops.empty()) return Load::constant;
    const int64_t extent = walk.loops.back().extent;
    if (access.in_rows(walk) && extent % columns_ == 0) return Load::in_place;
    if (access.in_columns(walk) && extent == columns_ && columns_ <= kMapTile) return Load::transposed;
    return Load::copied;
}

bool Map::reads_word_by_word(int value) const {
    for (int o = 0; o < operands_.count(); ++o) {
        const Operand& operand = nest_.operands[o];
        if (operand.is_index() || operand.value != value || !body_.needed[o]) continue;
        if (operand.words() != nest_.words() || !reads_by_rows(nest_, operand, nest_.words())) return false;
    }
    return true;
}

void Map::run_part(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end, uint32_t* scratch) const {
    Tile tile{values, {}, {}};
    tile.slots.reserve(body_.slots);
    for (int slot = 0; slot < body_.slots; ++slot) tile.slots.push_back(scratch + slot * tile_words());
    tile.sources.resize(body_.slots);
    for (size_t i = 0; i < nest_.immediates.size(); ++i) {
        tile.sources[operands_.count() + i] = {&nest_.immediates[i], 0, true};
    }
    std::vector<Reader> readers;
    readers.reserve(operands_.count());
    for (int o = 0; o < operands_.count(); ++o) {
        if (loads_[o] == Load::none) continue;
        const Access& access = operands_.accesses[o];
        const uint32_t* const tensor = operands_.tensor(o, values);
        if (loads_[o] == Load::constant) {
            access.load(kernels_, tile.slots[o], tensor, operands_.outer[o], access.origin(), 0, 1, nullptr);
            tile.sources[o] = {tile.slots[o], 0, true};
        } else {
            readers.push_back({o, loads_[o], tensor, operands_.outer[o], Cursor(operands_.outer[o], access.origin(), begin)});
        }
    }
    for (tile.start = begin; tile.start < end; tile.start += tile.rows * tile.columns) {
        const int64_t left = end - tile.start, column = tile.start % columns_;
        tile.rows = 1;
        tile.columns = std::min({columns_ - column, left, kMapTile});
        if (tile.columns == columns_) {
            tile.rows = std::min(most_rows_, left / columns_);
            for (const Reader& reader : readers) {
                if (reader.load != Load::copied) tile.rows = std::min(tile.rows, reader.even_rows(columns_));
            }
        }
        tile.out = out + tile.start;
        for (Reader& reader : readers) {
            load(tile, reader);
            if (reader.load != Load::copied) reader.advance(tile.rows, tile.columns);
        }
        run_body(tile);
    }
}

void Map::load(Tile& tile, const Reader& reader) const {
    const int o = reader.operand;
    if (reader.load == Load::in_place) {
        tile.sources[o] = {reader.tensor + reader.cursor.at()[0], reader.row_step(columns_), reader.walk.loops.back().step[0] == 0};
        return;
    }
    const bool is_all = body_.before.empty() && body_.result == o;
    uint32_t* const to = is_all ? tile.out : tile.slots[o];
    tile.sources[o] = {to, tile.columns, false};
    const int64_t count = tile.rows * tile.columns;
    if (reader.load == Load::transposed) {
        transpose(tile, reader, to);
    } else if (operands_.patterns[o]) {
        operands_.patterns[o]->load(to, reader.tensor, tile.start, count, 0);
    } else {
        const Access& access = operands_.accesses[o];
        access.load(kernels_, to, reader.tensor, reader.walk, access.origin(), tile.start, count, tile.slots.data());
    }
}

void Map::transpose(const Tile& tile, const Reader& reader, uint32_t* to) const {
    std::array<const uint32_t*, kMapTile> lines;
    const int64_t step = reader.walk.loops.back().step[0];
    for (int64_t i = 0; i < tile.columns; ++i) lines[i] = reader.tensor + reader.cursor.at()[0] + i * step;
    kernels_.transpose(to, tile.columns, lines.data(), tile.columns, tile.rows);
}

void Map::run_body(Tile& tile) const {
    const size_t passes = body_.before.size();
    if (passes == 0) {
        const Source& result = tile.sources[body_.result];
        if (result.words != tile.out) kernels_.copy(tile.out, &result, tile.rows, tile.columns);
    }
    for (size_t i = 0; i < passes; ++i) {
        const BodyPass& pass = body_.before[i];
        uint32_t* const to = i + 1 < passes ? tile.slots[pass.out] : tile.out;
        run_pass(pass, tile.sources.data(), to, tile.rows, tile.columns);
        tile.sources[pass.out] = {to, tile.columns, false};
    }
}

}  // namespace crowdtrain
