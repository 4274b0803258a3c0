#include "contraction.hpp"

#include <algorithm>
#include <array>

namespace crowdtrain {
namespace {

constexpr int64_t kDepth = 256;         // k of a block: a panel of columns takes half of the first-level cache
constexpr int64_t kBlockRows = 96;      // rows of a block: they stay in the second-level cache
constexpr int64_t kBlockColumns = 512;
constexpr int kMaxTileColumns = 32;
constexpr int64_t kFewColumns = 128;    // columns of a block where all rows are in one block

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t multiple) { return divide_up(a, multiple) * multiple; }

bool depends(const Operand& operand, int loop) {
    return std::any_of(operand.axes.begin(), operand.axes.end(),
                       [&](const Axis& axis) { return axis.coefficients[loop] != 0; });
}

bool gathers(const Operand& operand) {
    return std::any_of(operand.axes.begin(), operand.axes.end(),
                       [](const Axis& axis) { return axis.mode == Mode::gather; });
}

int64_t count_of(const Nest& nest, const std::vector<int>& loops) {
    int64_t count = 1;
    for (int loop : loops) count *= nest.extent(loop);
    return count;
}

// The output as an operand would read it.
Operand output_of(const Nest& nest) {
    Operand out;
    for (size_t loop = 0; loop < nest.outer.size(); ++loop) {
        out.axes.emplace_back().size = nest.outer[loop];
        out.axes.back().coefficients[loop] = 1;
    }
    return out;
}

// Where the words at indices first … first + count - 1 of `walk` are, relative to `base`, in an access that is inside.
void list_offsets(const Walk& walk, int64_t first, int64_t count, int32_t* offsets) {
    Cursor cursor(walk, Position{}, first);
    for (int64_t i = 0; i < count; ++i) {
        offsets[i] = static_cast<int32_t>(cursor.at()[0]);
        cursor.advance(1);
    }
}

}  // namespace

// How one factor comes into panels [k][width]. The last panel may be narrower: what is left, up to a multiple of `unit`.
struct Contraction::Packing {
    const Factor& factor;
    const uint32_t* tensor;
    int64_t width, unit;
    uint32_t* panels;
    Position base{};  // where the batch index puts it
};

// What of the output a thread works on, and its buffers.
struct Contraction::Block {
    Packing rows, columns;
    int64_t row_begin, row_end, column_begin, column_end;
    uint32_t *staging, *tile;
    int32_t *row_offsets, *column_offsets;  // of the output
    uint32_t* out = nullptr;                // of the batch index
    int64_t k = 0, depth = 0;               // the fold iterations at hand
};

Contraction::Factor::Factor(const Nest& nest, const Operand& operand, const Loops& loops,
                            const std::vector<int>& own_loops)
    : access(nest, operand),
      batch(access.walk(loops.batch)),
      own(access.walk(own_loops)),
      fold(access.walk(loops.fold)),
      along_fold(access.stride(fold) != 0 && (own.loops.empty() || access.stride(fold) < access.stride(own))) {}

std::unique_ptr<Contraction> Contraction::make(const Nest& nest, const Kernels& kernels) {
    const Body body(nest, kernels);
    const int operands = static_cast<int>(nest.operands.size());
    if (!body.known || body.known->step != FoldStep::multiply_add || !body.before.empty()) return nullptr;
    const int x = body.known->x, y = body.known->y;
    if (x == y || x >= operands || y >= operands) return nullptr;
    const Operand &first = nest.operands[x], &second = nest.operands[y];
    if (first.is_index() || second.is_index() || gathers(first) || gathers(second)) return nullptr;

    Loops loops, swapped;
    const int outer = static_cast<int>(nest.outer.size());
    for (int loop = 0; loop < nest.loops(); ++loop) {
        if (nest.extent(loop) == 1) continue;
        const bool in_first = depends(first, loop), in_second = depends(second, loop);
        std::vector<int>& group = loop >= outer           ? loops.fold
                                  : in_first == in_second ? loops.batch
                                  : in_first              ? loops.rows
                                                          : loops.columns;
        group.push_back(loop);
    }
    const int64_t rows = count_of(nest, loops.rows), columns = count_of(nest, loops.columns);
    if (rows == 1 || columns == 1) return nullptr;  // nothing is used twice
    // Columns lie along vectors. Best are those that stand together in the output, unless they fill vectors badly.
    const auto waste = [&](int64_t count) { return static_cast<double>(round_up(count, kernels.lanes)) / count; };
    const bool rows_last = loops.batch.empty() || loops.batch.back() < std::max(loops.rows.back(), loops.columns.back())
                               ? loops.rows.back() > loops.columns.back()
                               : rows > columns;
    const bool swap = rows_last ? waste(rows) < 1.3 * waste(columns) : 1.3 * waste(rows) < waste(columns);
    if (swap) std::swap(loops.rows, loops.columns);
    return std::unique_ptr<Contraction>(
        new Contraction(nest, kernels, loops, swap ? second : first, swap ? first : second));
}

Contraction::Contraction(const Nest& nest, const Kernels& kernels, const Loops& loops, const Operand& rows,
                         const Operand& columns)
    : kernels_(kernels),
      length_(nest.fold_length()),
      init_(nest.init),
      rows_(nest, rows, loops, loops.rows),
      columns_(nest, columns, loops, loops.columns),
      out_(nest, output_of(nest)),
      out_batch_(out_.walk(loops.batch)),
      out_rows_(out_.walk(loops.rows)),
      out_columns_(out_.walk(loops.columns)),
      depth_(divide_up(length_, divide_up(length_, kDepth + kDepth / 4))),  // blocks about equal
      block_rows_(std::min(round_up(rows_.own.count, kernels.tile_rows), kBlockRows / kernels.tile_rows * kernels.tile_rows)),
      block_columns_(std::min(round_up(columns_.own.count, tile_columns()),
                              rows_.own.count <= block_rows_ ? kFewColumns : kBlockColumns)) {}

void Contraction::run(const uint32_t* const* values, uint32_t* out, Workers& workers) const {
    constexpr int64_t kWorthwhile = 1 << 17;  // multiplications for one part
    const int64_t batch = out_batch_.count;
    const int64_t row_tiles = divide_up(rows_.own.count, kernels_.tile_rows);
    const int64_t column_tiles = divide_up(columns_.own.count, tile_columns());
    const int threads = workers.pool.threads();
    const int64_t work = batch * rows_.own.count * columns_.own.count * length_;
    const int64_t wanted = threads == 1 ? 1 : std::clamp<int64_t>(work / kWorthwhile, 1, 4 * threads);
    const int64_t batch_parts = std::min(batch, wanted);
    const int64_t column_parts = std::min(divide_up(wanted, batch_parts), column_tiles);
    const int64_t row_parts = std::min(divide_up(wanted, batch_parts * column_parts), row_tiles);

    const int64_t row_words = block_rows_ / kernels_.tile_rows * panel_words(kernels_.tile_rows);
    const int64_t column_words = block_columns_ / tile_columns() * panel_words(tile_columns());
    const int64_t staging_words = std::max({block_rows_, block_columns_, depth_ * tile_columns()});
    const int64_t tile_words = kernels_.tile_rows * tile_columns();
    const int64_t scratch_words =
        row_words + column_words + staging_words + tile_words + block_rows_ + block_columns_;

    workers.pool.run(batch_parts * column_parts * row_parts, [&](int64_t part, int thread) {
        const int64_t row_part = part % row_parts, column_part = part / row_parts % column_parts;
        const int64_t batch_part = part / row_parts / column_parts;
        uint32_t* const row_panels = workers.scratch[thread].words(scratch_words);
        uint32_t* const column_panels = row_panels + row_words;
        uint32_t* const staging = column_panels + column_words;
        uint32_t* const tile = staging + staging_words;
        auto* const offsets = reinterpret_cast<int32_t*>(tile + tile_words);
        Block block{
            {rows_, values[rows_.access.value()], kernels_.tile_rows, 1, row_panels},
            {columns_, values[columns_.access.value()], tile_columns(), kernels_.lanes, column_panels},
            row_tiles * row_part / row_parts * kernels_.tile_rows,
            std::min(rows_.own.count, row_tiles * (row_part + 1) / row_parts * kernels_.tile_rows),
            column_tiles * column_part / column_parts * tile_columns(),
            std::min(columns_.own.count, column_tiles * (column_part + 1) / column_parts * tile_columns()),
            staging,
            tile,
            offsets,
            offsets + block_rows_,
        };
        for (int64_t b = batch * batch_part / batch_parts; b < batch * (batch_part + 1) / batch_parts; ++b) {
            for (Packing* packing : {&block.rows, &block.columns}) {
                packing->base = packing->factor.access.origin();
                packing->factor.batch.move(packing->base, b);
            }
            Position at{};
            out_batch_.move(at, b);
            block.out = out + at[0];
            run_block(block);
        }
    });
}

void Contraction::run_block(Block& block) const {
    for (int64_t column = block.column_begin; column < block.column_end; column += block_columns_) {
        const int64_t columns = std::min(block_columns_, block.column_end - column);
        list_offsets(out_columns_, column, columns, block.column_offsets);
        for (block.k = 0; block.k < length_; block.k += depth_) {
            block.depth = std::min(depth_, length_ - block.k);
            pack(block, block.columns, column, columns);
            for (int64_t row = block.row_begin; row < block.row_end; row += block_rows_) {
                const int64_t rows = std::min(block_rows_, block.row_end - row);
                list_offsets(out_rows_, row, rows, block.row_offsets);
                pack(block, block.rows, row, rows);
                run_tiles(block, rows, columns);
            }
        }
    }
}

void Contraction::pack(const Block& block, const Packing& packing, int64_t first, int64_t count) const {
    if (packing.factor.along_fold) {
        pack_along(block, packing, first, count);
    } else {
        pack_across(block, packing, first, count);
    }
}

// From rows of words along k, transposed.
void Contraction::pack_along(const Block& block, const Packing& packing, int64_t first, int64_t count) const {
    const auto& [access, batch, own, fold, along] = packing.factor;
    const bool in_place = access.contiguous(fold);
    std::array<const uint32_t*, kMaxTileColumns> lines;
    Cursor cursor(own, packing.base, first);
    uint32_t* panel = packing.panels;
    for (int64_t i = 0; i < count; i += packing.width, panel += panel_words(packing.width)) {
        const int64_t line_count = std::min(packing.width, count - i), width = round_up(line_count, packing.unit);
        for (int64_t j = 0; j < line_count; ++j, cursor.advance(1)) {
            if (in_place) {
                lines[j] = packing.tensor + cursor.at()[0] + block.k;
                continue;
            }
            uint32_t* const line = block.staging + j * block.depth;
            lines[j] = line;
            access.load(kernels_, line, packing.tensor, fold, cursor.at(), block.k, block.depth, nullptr);
        }
        if (packing.unit == 1) {
            kernels_.transpose_panel(panel, lines.data(), line_count, block.depth);
            continue;
        }
        kernels_.transpose(panel, width, lines.data(), line_count, block.depth);
        for (int64_t k = 0; k < block.depth && line_count < width; ++k) {
            std::fill(panel + k * width + line_count, panel + (k + 1) * width, 0);
        }
    }
}

// From rows of words across k, cut into pieces.
void Contraction::pack_across(const Block& block, const Packing& packing, int64_t first, int64_t count) const {
    const auto& [access, batch, own, fold, along] = packing.factor;
    const int64_t whole = count / packing.width, rest = count % packing.width;
    const int64_t last_width = round_up(rest, packing.unit);
    uint32_t* const last = packing.panels + whole * panel_words(packing.width);
    const bool in_place = access.contiguous(own);
    Cursor cursor(fold, packing.base, block.k);
    for (int64_t k = 0; k < block.depth; ++k, cursor.advance(1)) {
        const uint32_t* line = block.staging;
        if (in_place) {
            line = packing.tensor + cursor.at()[0] + first;
        } else {
            access.load(kernels_, block.staging, packing.tensor, own, cursor.at(), first, count, nullptr);
        }
        uint32_t* const out = packing.panels + k * packing.width;
        (packing.unit == 1 ? kernels_.spread_rows : kernels_.spread_columns)(out, panel_words(packing.width), line, whole);
        std::copy_n(line + whole * packing.width, rest, last + k * last_width);
        std::fill(last + k * last_width + rest, last + (k + 1) * last_width, 0);
    }
}

void Contraction::run_tiles(const Block& block, int64_t rows, int64_t columns) const {
    for (int64_t column = 0; column < columns; column += tile_columns()) {
        const int64_t column_count = std::min(tile_columns(), columns - column);
        const int64_t vectors = divide_up(column_count, kernels_.lanes);
        const TileSide column_side{{block.columns.panels + column / tile_columns() * panel_words(tile_columns())}, nullptr};
        for (int64_t row = 0; row < rows; row += kernels_.tile_rows) {
            const int64_t row_count = std::min<int64_t>(kernels_.tile_rows, rows - row);
            const TileSide row_side{{block.rows.panels + row / kernels_.tile_rows * panel_words(kernels_.tile_rows)}, nullptr};
            const TilePass pass = kernels_.tile[0][0][row_count - 1][vectors - 1];
            run_tile(block, pass, row_side, column_side, row, row_count, column, column_count);
        }
    }
}

// Runs a tile in the output itself where its words lie in whole vectors, else in a copy.
void Contraction::run_tile(const Block& block, TilePass pass, const TileSide& row_side, const TileSide& column_side,
                           int64_t row, int64_t rows, int64_t column, int64_t columns) const {
    const int32_t *row_at = block.row_offsets + row, *column_at = block.column_offsets + column;
    const bool fresh = block.k == 0;
    const int64_t out_row = rows > 1 ? row_at[1] - row_at[0] : 0;
    bool even = true;
    for (int64_t i = 1; i < rows; ++i) even &= row_at[i] - row_at[i - 1] == out_row;
    const bool together = column_at[columns - 1] - column_at[0] == columns - 1;
    if (even && together && columns % kernels_.lanes == 0) {
        pass(block.depth, row_side, column_side, block.out + row_at[0] + column_at[0], out_row, fresh, init_);
        return;
    }
    const int64_t tile_row = round_up(columns, kernels_.lanes);
    const auto copy = [&](bool in) {
        for (int64_t i = 0; i < rows; ++i) {
            uint32_t *const mine = block.tile + i * tile_row, *const line = block.out + row_at[i];
            for (int64_t j = 0; j < columns; ++j) (in ? mine[j] : line[column_at[j]]) = in ? line[column_at[j]] : mine[j];
        }
    };
    if (!fresh) copy(true);
    pass(block.depth, row_side, column_side, block.tile, tile_row, fresh, init_);
    copy(false);
}

}  // namespace crowdtrain
