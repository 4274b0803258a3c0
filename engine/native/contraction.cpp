#include "contraction.hpp"

#include <algorithm>
#include <limits>

#include "body.hpp"
#include "rounding.hpp"

namespace crowdtrain {
namespace {

constexpr int64_t kDepth = 512;          // k of a block, at most: a panel of columns streams from the second-level cache
constexpr int64_t kBlockRows = 96;       // they stay there
constexpr int64_t kBlockColumns = 512;
constexpr int64_t kFewColumns = 128;     // columns of a block where few rows use each
constexpr int64_t kOuterRows = 4096;
constexpr int kParts = 2;                // for each thread, lest one that is held up keep the others waiting
constexpr int64_t kKeptWords = 1 << 15;  // of accumulators
constexpr int64_t kKeptColumns = 1 << 18;
constexpr int64_t kSharedColumns = 1 << 20;  // words that all threads pack for all, where each is used by many rows:
constexpr int64_t kSharingRows = 1024;       // to meet, and to read what another has written, costs more than packing a little

// For each tile of rows the distance between two of them, or -1 where it varies.
void list_steps(const int32_t* offsets, int64_t rows, int64_t tile_rows, int32_t* steps) {
    for (int64_t row = 0; row < rows; row += tile_rows) {
        const int64_t count = std::min(tile_rows, rows - row);
        const int32_t step = count > 1 ? offsets[row + 1] - offsets[row] : 0;
        bool even = true;
        for (int64_t i = row + 2; i < row + count; ++i) even &= offsets[i] - offsets[i - 1] == step;
        *steps++ = even ? step : -1;
    }
}

// k of a block: about equal blocks, or a whole part of the stretches of k that stand together in memory.
int64_t choose_depth(int64_t length, int64_t run) {
    for (int64_t depth = std::min(kDepth, run); depth >= kDepth / 4; --depth) {
        if (run % depth == 0 && length > kDepth) return depth;
    }
    return divide_up(length, divide_up(length, kDepth));
}

// Columns lie along vectors. Best are those that stand together in the output, unless they fill vectors badly.
// A factor whose words are read several times is best read in place, which only rows can be.
bool better_swapped(const ContractionLoops& loops, const Factor& rows, const Factor& columns, int lanes) {
    if (rows.overlapping() != columns.overlapping()) return columns.overlapping();
    const auto waste = [&](const Factor& f) { return static_cast<double>(round_up(f.count(), lanes)) / f.count(); };
    constexpr double kMuch = 1.3;
    return loops.rows.back() > loops.columns.back() ? waste(rows) < kMuch * waste(columns)
                                                    : kMuch * waste(rows) < waste(columns);
}

}  // namespace

// A part of the output that a thread works on, and its buffers.
struct Contraction::Block {
    const uint32_t *rows, *columns;  // tensors, or their stages
    const uint32_t* packed;          // all columns for all k, or null where the part packs its own
    int64_t row_begin, row_end, column_begin, column_end;
    uint32_t *row_panels, *column_panels, *lines, *tiles;
    int32_t *row_offsets, *out_row_offsets, *out_row_steps, *out_column_offsets, *fold_offsets;
    Position rows_base{}, columns_base{};  // of the batch index
    uint32_t* out = nullptr;
    int64_t k = 0, depth = 0;              // the fold iterations at hand
    // What the offsets were listed for. They are the same for every batch index.
    struct Listed {
        int64_t first = -1, count = 0;
        bool differs(int64_t now_first, int64_t now_count) {
            const bool other = first != now_first || count != now_count;
            first = now_first;
            count = now_count;
            return other;
        }
    } listed_rows, listed_columns, listed_folds;
};

struct Contraction::Tile {
    TilePass pass;
    TileSide row_side, column_side;
    int64_t row, rows, column, columns;
    bool together;   // its columns stand together in the output
    uint32_t* kept;  // where its accumulators stay
};

// Sizes of a thread's buffers, in words.
struct Contraction::Buffers {
    int64_t row_panel, column_panel, row_panels, block_panels, column_panels, shared_panels, lines, tiles;

    explicit Buffers(const Contraction& c) {
        row_panel = c.depth_ * c.tile_rows_ + c.kernels_.lanes;
        column_panel = c.depth_ * c.tile_columns_ + c.kernels_.lanes;
        row_panels = c.rows_in_place_ ? 0 : c.block_rows_ / c.tile_rows_ * row_panel;
        block_panels = c.block_columns_ / c.tile_columns_ * column_panel;
        const int64_t k_blocks = divide_up(c.length_, c.depth_);
        column_panels = c.share_columns_ ? 0 : block_panels * (c.keep_columns_ ? k_blocks : 1);
        shared_panels = c.share_columns_ ? block_panels * k_blocks : 0;
        lines = std::max({c.block_rows_, c.block_columns_, c.depth_ * c.tile_columns_});
        tiles = c.keep_tiles_ ? c.outer_rows_ * c.block_columns_ : c.tile_rows_ * c.tile_columns_;
    }
};

std::unique_ptr<Contraction> Contraction::make(const Nest& nest, const Kernels& kernels) {
    const Body body(nest, kernels);
    const int operands = static_cast<int>(nest.operands.size());
    if (!body.known || body.known->step != FoldStep::multiply_add || !body.once.empty() || !body.before.empty()) {
        return nullptr;
    }
    const int x = body.known->x, y = body.known->y;
    if (x == y || x >= operands || y >= operands) return nullptr;
    const Operand &first = nest.operands[x], &second = nest.operands[y];
    if (first.is_index() || second.is_index() || first.gathers() || second.gathers()) return nullptr;

    ContractionLoops loops;
    const int outer = static_cast<int>(nest.outer.size());
    for (int loop = 0; loop < nest.loops(); ++loop) {
        if (nest.extent(loop) == 1) continue;
        const bool in_first = first.moved_by(loop), in_second = second.moved_by(loop);
        std::vector<int>& group = loop >= outer           ? loops.fold
                                  : in_first == in_second ? loops.batch
                                  : in_first              ? loops.rows
                                                          : loops.columns;
        group.push_back(loop);
    }
    if (loops.rows.empty() || loops.columns.empty()) return nullptr;  // nothing is used twice
    Factor rows(nest, first, loops, loops.rows, kernels), columns(nest, second, loops, loops.columns, kernels);
    if (better_swapped(loops, rows, columns, kernels.lanes)) {
        std::swap(loops.rows, loops.columns);
        return std::unique_ptr<Contraction>(new Contraction(nest, kernels, loops, std::move(columns), std::move(rows)));
    }
    return std::unique_ptr<Contraction>(new Contraction(nest, kernels, loops, std::move(rows), std::move(columns)));
}

Contraction::Contraction(const Nest& nest, const Kernels& kernels, const ContractionLoops& loops, Factor rows,
                         Factor columns)
    : kernels_(kernels),
      length_(nest.fold_length()),
      init_(nest.init),
      rows_(std::move(rows)),
      columns_(std::move(columns)),
      out_(nest, output_of(nest)),
      out_batch_(out_.walk(loops.batch)),
      out_rows_(out_.walk(loops.rows)),
      out_columns_(out_.walk(loops.columns)),
      tile_rows_(kernels.tile_rows),
      tile_columns_(kernels.tile_vectors * kernels.lanes) {
    depth_ = choose_depth(length_, columns_.along_fold() ? columns_.run() : 1);
    block_rows_ = std::min(round_up(rows_.count(), tile_rows_), kBlockRows / tile_rows_ * tile_rows_);
    block_columns_ = std::min(round_up(columns_.count(), tile_columns_), rows_.count() <= kBlockRows ? kFewColumns : kBlockColumns);
    rows_in_place_ = rows_.inside() && (rows_.overlapping() || (columns_.count() <= kFewColumns && rows_.along_fold()));
    const int64_t k_blocks = divide_up(length_, depth_);
    keep_tiles_ = k_blocks > 1 && !(out_columns_.loops.back().step[0] == 1 && out_columns_.loops.back().extent >= tile_columns_);
    share_columns_ = out_batch_.count == 1 && !keep_tiles_ && columns_.count() * length_ <= kSharedColumns &&
                     rows_.count() >= kSharingRows;
    if (share_columns_) block_columns_ = round_up(columns_.count(), tile_columns_);
    keep_columns_ = k_blocks * block_columns_ * depth_ <= kKeptColumns;
    outer_rows_ = std::min(round_up(rows_.count(), tile_rows_), keep_tiles_ ? kKeptWords / block_columns_ / tile_rows_ * tile_rows_ : kOuterRows / tile_rows_ * tile_rows_);
    block_rows_ = std::min(block_rows_, outer_rows_);
}

// Packs all columns for all k, for all threads to read.
void Contraction::pack_columns(const uint32_t* tensor, uint32_t* packed, Workers& workers) const {
    constexpr int64_t kTiles = 8;  // of a piece of work
    const Buffers sizes(*this);
    const int64_t piece = kTiles * tile_columns_, pieces = divide_up(columns_.count(), piece);
    workers.split(divide_up(length_, depth_) * pieces, 1, piece * depth_, [&](int64_t begin, int64_t end, int thread) {
        uint32_t* const lines = workers.scratch[thread].words(sizes.lines);
        for (int64_t i = begin; i < end; ++i) {
            const int64_t k = i / pieces * depth_, column = i % pieces * piece;
            const Panels panels{packed + i / pieces * sizes.block_panels + i % pieces * kTiles * sizes.column_panel, tile_columns_,
                                kernels_.lanes, sizes.column_panel};
            columns_.pack(kernels_, tensor, columns_.base(0), column, std::min(piece, columns_.count() - column), k,
                          std::min(depth_, length_ - k), panels, lines);
        }
    });
}

// In how many parts rows and columns are cut so that there are at least about `parts`: each part packs its rows and its
// columns anew, so that of all ways the one that packs least is chosen.
std::pair<int64_t, int64_t> Contraction::cut(int64_t parts, int64_t row_tiles, int64_t column_tiles) const {
    std::pair<int64_t, int64_t> best{1, 1};
    int64_t least = std::numeric_limits<int64_t>::max();
    for (int64_t row_parts = 1; row_parts <= std::min(parts, row_tiles); ++row_parts) {
        const int64_t column_parts = std::min(divide_up(parts, row_parts), column_tiles);
        const int64_t missing = std::max<int64_t>(0, parts - row_parts * column_parts);
        const int64_t packed = row_parts * columns_.count() + (rows_in_place_ ? 0 : column_parts * rows_.count());
        const int64_t cost = packed + missing * rows_.count() * columns_.count();
        if (cost >= least) continue;
        least = cost;
        best = {row_parts, column_parts};
    }
    return best;
}

void Contraction::run(const uint32_t* const* values, uint32_t* out, Workers& workers) const {
    constexpr int64_t kWorthwhile = 1 << 17;  // multiplications for one part
    const Buffers sizes(*this);
    uint32_t* const stages = workers.shared.words(rows_.stage_words() + columns_.stage_words() + sizes.shared_panels);
    uint32_t* const packed = share_columns_ ? stages + rows_.stage_words() + columns_.stage_words() : nullptr;
    const uint32_t *rows = values[rows_.value()], *columns = values[columns_.value()];
    if (rows_.stage_words() > 0) {
        rows_.fill_stage(kernels_, rows, stages, workers);
        rows = stages;
    }
    if (columns_.stage_words() > 0) {
        columns_.fill_stage(kernels_, columns, stages + rows_.stage_words(), workers);
        columns = stages + rows_.stage_words();
    }
    const int64_t batch = out_batch_.count;
    const int64_t row_tiles = divide_up(rows_.count(), tile_rows_), column_tiles = divide_up(columns_.count(), tile_columns_);
    const int threads = workers.pool.threads();
    const int64_t work = batch * rows_.count() * columns_.count() * length_;
    const int64_t wanted = threads == 1 ? 1 : std::clamp<int64_t>(work / kWorthwhile, 1, kParts * threads);
    const int64_t batch_parts = std::min(batch, wanted);
    const auto [row_parts, column_parts] = share_columns_ ? std::pair{std::min(wanted, row_tiles), int64_t{1}}
                                                          : cut(divide_up(wanted, batch_parts), row_tiles, column_tiles);

    if (share_columns_) pack_columns(columns, packed, workers);
    const int64_t scratch = sizes.row_panels + sizes.column_panels + sizes.lines + sizes.tiles + 3 * outer_rows_ + block_columns_ + depth_;
    workers.pool.run(batch_parts * column_parts * row_parts, [&](int64_t part, int thread) {
        const int64_t row_part = part % row_parts, column_part = part / row_parts % column_parts;
        const int64_t batch_part = part / row_parts / column_parts;
        Block block{};
        block.rows = rows;
        block.columns = columns;
        block.packed = packed;
        block.row_begin = row_tiles * row_part / row_parts * tile_rows_;
        block.row_end = std::min(rows_.count(), row_tiles * (row_part + 1) / row_parts * tile_rows_);
        block.column_begin = column_tiles * column_part / column_parts * tile_columns_;
        block.column_end = std::min(columns_.count(), column_tiles * (column_part + 1) / column_parts * tile_columns_);
        block.row_panels = workers.scratch[thread].words(scratch);
        block.column_panels = block.row_panels + sizes.row_panels;
        block.lines = block.column_panels + sizes.column_panels;
        block.tiles = block.lines + sizes.lines;
        block.row_offsets = reinterpret_cast<int32_t*>(block.tiles + sizes.tiles);
        block.out_row_offsets = block.row_offsets + outer_rows_;
        block.out_row_steps = block.out_row_offsets + outer_rows_;
        block.out_column_offsets = block.out_row_steps + outer_rows_;
        block.fold_offsets = block.out_column_offsets + block_columns_;
        for (int64_t b = batch * batch_part / batch_parts; b < batch * (batch_part + 1) / batch_parts; ++b) {
            block.rows_base = rows_.base(b);
            block.columns_base = columns_.base(b);
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
        if (block.listed_columns.differs(column, columns)) {
            list_offsets(kernels_, out_columns_, column, columns, block.out_column_offsets);
        }
        for (int64_t row = block.row_begin; row < block.row_end; row += outer_rows_) {
            const int64_t rows = std::min(outer_rows_, block.row_end - row);
            if (block.listed_rows.differs(row, rows)) {
                list_offsets(kernels_, out_rows_, row, rows, block.out_row_offsets);
                list_steps(block.out_row_offsets, rows, tile_rows_, block.out_row_steps);
                if (rows_in_place_) rows_.own_offsets(kernels_, row, rows, block.row_offsets);
            }
            run_rows(block, row, rows, column, columns);
        }
    }
}

// The whole fold for some rows and columns.
void Contraction::run_rows(Block& block, int64_t row, int64_t rows, int64_t column, int64_t columns) const {
    const Buffers sizes(*this);
    uint32_t* own_panels = block.column_panels;
    for (block.k = 0; block.k < length_; block.k += depth_) {
        block.depth = std::min(depth_, length_ - block.k);
        if (!block.packed && (!keep_columns_ || row == block.row_begin)) {
            const Panels panels{own_panels, tile_columns_, kernels_.lanes, sizes.column_panel};
            columns_.pack(kernels_, block.columns, block.columns_base, column, columns, block.k, block.depth, panels, block.lines);
        }
        const uint32_t* const column_panels = block.packed ? block.packed + block.k / depth_ * sizes.block_panels : own_panels;
        if (rows_in_place_ && block.listed_folds.differs(block.k, block.depth)) {
            rows_.fold_offsets(kernels_, block.k, block.depth, block.fold_offsets);
        }
        for (int64_t r = 0; r < rows; r += block_rows_) {
            const int64_t count = std::min(block_rows_, rows - r);
            if (!rows_in_place_) {
                const Panels panels{block.row_panels, tile_rows_, 1, sizes.row_panel};
                rows_.pack(kernels_, block.rows, block.rows_base, row + r, count, block.k, block.depth, panels, block.lines);
            }
            run_tiles(block, column_panels, r, count, columns);
        }
        if (keep_columns_) own_panels += sizes.block_panels;
    }
}

void Contraction::run_tiles(const Block& block, const uint32_t* column_panels, int64_t row, int64_t rows,
                            int64_t columns) const {
    const Buffers sizes(*this);
    const uint32_t* const row_source = block.rows + (rows_in_place_ ? block.rows_base[0] : 0);
    Tile tile{};
    tile.row_side.offsets = block.fold_offsets;
    for (tile.column = 0; tile.column < columns; tile.column += tile_columns_) {
        tile.columns = std::min(tile_columns_, columns - tile.column);
        tile.column_side.base[0] = column_panels + tile.column / tile_columns_ * sizes.column_panel;
        const int32_t* const column_at = block.out_column_offsets + tile.column;
        tile.together = column_at[tile.columns - 1] - column_at[0] == tile.columns - 1;
        const int64_t vectors = divide_up(tile.columns, kernels_.lanes);
        for (int64_t r = 0; r < rows; r += tile_rows_) {
            tile.row = row + r;
            tile.rows = std::min(tile_rows_, rows - r);
            if (rows_in_place_) {
                for (int64_t i = 0; i < tile.rows; ++i) tile.row_side.base[i] = row_source + block.row_offsets[tile.row + i];
            } else {
                tile.row_side.base[0] = block.row_panels + r / tile_rows_ * sizes.row_panel;
            }
            tile.pass = kernels_.tile[rows_in_place_][0][tile.rows - 1][vectors - 1];
            tile.kept = block.tiles;
            if (keep_tiles_) tile.kept += tile.row * block_columns_ + tile.column * tile_rows_;
            run_tile(block, tile);
        }
    }
}

// Runs a tile in the output itself where its words lie in whole vectors, else in a copy.
void Contraction::run_tile(const Block& block, const Tile& tile) const {
    const bool first = block.k == 0, last = block.k + block.depth == length_;
    const int64_t out_row = block.out_row_steps[tile.row / tile_rows_];
    if (!keep_tiles_ && tile.together && out_row >= 0 && tile.columns % kernels_.lanes == 0) {
        uint32_t* const out = block.out + block.out_row_offsets[tile.row] + block.out_column_offsets[tile.column];
        for (int64_t i = 0; i < tile.rows; ++i) __builtin_prefetch(out + (tile.rows + i) * out_row, 1);  // the next tile
        tile.pass(block.depth, tile.row_side, tile.column_side, out, out_row, first, init_);
        return;
    }
    const int64_t row_words = round_up(tile.columns, kernels_.lanes);
    if (!first && !keep_tiles_) copy_in(block, tile, row_words);
    tile.pass(block.depth, tile.row_side, tile.column_side, tile.kept, row_words, first, init_);
    if (last || !keep_tiles_) copy_out(block, tile, row_words);
}

void Contraction::copy_in(const Block& block, const Tile& tile, int64_t row_words) const {
    const int32_t* const row_at = block.out_row_offsets + tile.row;
    const int32_t* const column_at = block.out_column_offsets + tile.column;
    for (int64_t i = 0; i < tile.rows; ++i) {
        const uint32_t* const out = block.out + row_at[i];
        for (int64_t j = 0; j < tile.columns; ++j) tile.kept[i * row_words + j] = out[column_at[j]];
    }
}

void Contraction::copy_out(const Block& block, const Tile& tile, int64_t row_words) const {
    const int32_t* const row_at = block.out_row_offsets + tile.row;
    const int32_t* const column_at = block.out_column_offsets + tile.column;
    if (block.out_row_steps[tile.row / tile_rows_] == 1) {
        kernels_.transpose_out(block.out + row_at[0], column_at, tile.kept, row_words, tile.rows, tile.columns);
        return;
    }
    for (int64_t i = 0; i < tile.rows; ++i) {
        uint32_t* const out = block.out + row_at[i];
        for (int64_t j = 0; j < tile.columns; ++j) out[column_at[j]] = tile.kept[i * row_words + j];
    }
}

}  // namespace crowdtrain
