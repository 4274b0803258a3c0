#include "fold.hpp"

#include <algorithm>
#include <array>

#include "rounding.hpp"

namespace crowdtrain {
namespace {

constexpr int64_t kTransposedOutputs = 16;  // of a tile that is loaded along the fold

}  // namespace

// The tile being worked on.
struct Fold::Tile {
    int64_t start, outputs;  // outputs start … start + outputs - 1
    int64_t from, folds;     // fold iterations from … from + folds - 1
    int64_t row;             // words from one iteration to the next
    std::vector<uint32_t*> slots;
    std::vector<int64_t> rows;  // by slot: words from one iteration to the next
    uint32_t* lines;            // kTileWords of scratch
};

Fold::Fold(const Nest& nest, const Kernels& kernels)
    : RowPlan(nest), kernels_(kernels), operands_(nest, kernels), body_(nest, kernels), loads_(nest.operands.size(), Load::none) {
    constexpr int64_t kWorthTransposing = 8;  // words along the fold
    bool all_in_place = body_.known && body_.once.empty() && body_.before.empty(), any_by_fold = false;
    for (int o = 0; o < static_cast<int>(nest.operands.size()); ++o) {
        if (!body_.needed[o]) continue;
        const Access& access = operands_.accesses[o];
        const Walk &outer = operands_.outer[o], &fold = operands_.fold[o];
        const int64_t across = access.stride(outer), along = access.stride(fold);
        if (body_.known && !read_before(o) && fold.loops.size() <= 1 && access.contiguous(outer)) {
            loads_[o] = Load::in_place;
        } else if (body_.steady[o]) {
            loads_[o] = Load::once;
        } else if (access.gathers().empty() && along > 0 && along < across &&
                   fold.loops.back().extent >= kWorthTransposing) {
            loads_[o] = Load::by_fold;
        } else {
            loads_[o] = Load::by_output;
        }
        all_in_place &= loads_[o] == Load::in_place;
        any_by_fold |= loads_[o] == Load::by_fold;
    }
    outputs_ = std::min(round_up(nest.words(), kernels.lanes), any_by_fold ? kTransposedOutputs : kTileWords / 2);
    folds_ = all_in_place ? nest.fold_length() : std::min(nest.fold_length(), kTileWords / outputs_);
    by_lines_ = lies_along_fold();
}

// Whether it pays to read all that the fold reads along it, and the step has a kernel for that.
bool Fold::lies_along_fold() const {
    constexpr int64_t kShortest = 8;
    const auto operands = static_cast<int>(nest_.operands.size());
    const auto is_immediate = [&](int slot) { return slot >= operands && slot < operands + static_cast<int>(nest_.immediates.size()); };
    if (!body_.known || nest_.fold_length() < kShortest || is_immediate(body_.known->x) || is_immediate(body_.known->y)) return false;
    bool moves = false;
    for (int o = 0; o < operands; ++o) {
        const Access& access = operands_.accesses[o];
        if (!body_.needed[o] || body_.steady[o]) continue;
        const int64_t across = access.stride(operands_.outer[o]), along = access.stride(operands_.fold[o]);
        if (access.is_index() || !access.gathers().empty() || along == 0 || (across != 0 && along >= across)) return false;
        moves = true;
    }
    return moves;
}

// Whether a pass before the fold reads the slot, or an operand gathers by it.
bool Fold::read_before(int slot) const {
    for (const auto* passes : {&body_.once, &body_.before}) {
        for (const BodyPass& pass : *passes) {
            if (std::find(std::begin(pass.in), std::end(pass.in), slot) != std::end(pass.in)) return true;
        }
    }
    return operands_.gathered_by(slot, body_);
}

void Fold::run_part(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end, uint32_t* scratch) const {
    if (by_lines_) {
        run_lines(values, out, begin, end, scratch);
    } else {
        run_columns(values, out, begin, end, scratch);
    }
}

// An operand, and where it is read for each of a few outputs, before the fold.
struct Fold::LineReader {
    int operand;
    const uint32_t* tensor;
    std::vector<Position> at;
};

// A few outputs, each with what the body's slots hold along the fold.
struct Fold::Lines {
    int64_t start, outputs;  // outputs start … start + outputs - 1
    int64_t from, folds;     // fold iterations from … from + folds - 1
    std::vector<LineReader> readers;  // of the operands that are needed
    std::vector<uint32_t*> slots;
    std::vector<Source> sources;  // by slot: a row for each output
};

void Fold::run_lines(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end, uint32_t* scratch) const {
    const int64_t most = most_lines(), length = nest_.fold_length();
    Lines lines{};
    for (int slot = 0; slot < body_.slots; ++slot) lines.slots.push_back(scratch + slot * most * kLineWords);
    lines.sources.resize(body_.slots);
    for (size_t i = 0; i < nest_.immediates.size(); ++i) {
        lines.sources[nest_.operands.size() + i] = {&nest_.immediates[i], 0, true};
    }
    for (int o = 0; o < operands_.count(); ++o) {
        if (body_.needed[o]) lines.readers.push_back({o, operands_.tensor(o, values), std::vector<Position>(most)});
    }
    std::vector<const uint32_t*> x(most), y(most);
    const auto [step, x_slot, y_slot] = *body_.known;
    for (lines.start = begin; lines.start < end; lines.start += most) {
        lines.outputs = std::min(most, end - lines.start);
        for (LineReader& reader : lines.readers) {
            Cursor cursor(operands_.outer[reader.operand], operands_.accesses[reader.operand].origin(), lines.start);
            for (int64_t i = 0; i < lines.outputs; ++i, cursor.advance(1)) reader.at[i] = cursor.at();
        }
        kernels_.fill(out + lines.start, nest_.init, lines.outputs);
        for (lines.from = 0; lines.from < length; lines.from += kLineWords) {
            lines.folds = std::min(kLineWords, length - lines.from);
            make_lines(lines);
            list_lines(lines, x_slot, x);
            if (y_slot != x_slot) list_lines(lines, y_slot, y);
            kernels_.fold_rows[static_cast<int>(step)](out + lines.start, x.data(), y_slot != x_slot ? y.data() : x.data(),
                                                       lines.folds, lines.outputs);
        }
    }
}

// Brings the operands of some outputs, and what the body computes of them, into lines.
void Fold::make_lines(Lines& lines) const {
    for (const LineReader& reader : lines.readers) load_lines(lines, reader);
    if (lines.from == 0) {
        for (const BodyPass& pass : body_.once) {
            run_pass(pass, lines.sources.data(), lines.slots[pass.out], lines.outputs, 1);
            lines.sources[pass.out] = {lines.slots[pass.out], 1, true};
        }
    }
    for (const BodyPass& pass : body_.before) {
        run_pass(pass, lines.sources.data(), lines.slots[pass.out], lines.outputs, lines.folds);
        lines.sources[pass.out] = {lines.slots[pass.out], lines.folds, false};
    }
}

void Fold::load_lines(Lines& lines, const LineReader& reader) const {
    const int o = reader.operand;
    const Access& access = operands_.accesses[o];
    const Walk& fold = operands_.fold[o];
    uint32_t* const slot = lines.slots[o];
    if (body_.steady[o]) {
        if (lines.from > 0) return;  // still there
        const bool inside = access.inside() && !access.is_index();
        std::array<const uint32_t*, kMaxOperands> words{};
        for (int64_t i = 0; i < lines.outputs; ++i) {
            if (inside) {
                slot[i] = reader.tensor[reader.at[i][0]];
                continue;
            }
            for (int gathered : access.gathers()) words[gathered] = lines.slots[gathered] + i;
            access.load(kernels_, slot + i, reader.tensor, fold, reader.at[i], 0, 1, words.data());
        }
        lines.sources[o] = {slot, 1, true};
        return;
    }
    const int64_t row = lines.outputs > 1 ? reader.at[1][0] - reader.at[0][0] : 0;
    bool in_place = access.contiguous(fold);
    for (int64_t i = 1; in_place && i < lines.outputs; ++i) in_place = reader.at[i][0] == reader.at[0][0] + i * row;
    if (in_place) {
        lines.sources[o] = {reader.tensor + reader.at[0][0] + lines.from, row, false};
        return;
    }
    for (int64_t i = 0; i < lines.outputs; ++i) {
        access.load(kernels_, slot + i * lines.folds, reader.tensor, fold, reader.at[i], lines.from, lines.folds, nullptr);
    }
    lines.sources[o] = {slot, lines.folds, false};
}

// Where the words of a slot are for each output. Of the two that a step reads one at least moves along the fold, so that
// the lines after the last slot are written for one only.
void Fold::list_lines(Lines& lines, int slot, std::vector<const uint32_t*>& list) const {
    Source source = lines.sources[slot];
    if (source.same) {
        uint32_t* const words = lines.slots.back() + most_lines() * kLineWords;
        kernels_.copy(words, &source, lines.outputs, lines.folds);
        source = {words, lines.folds, false};
    }
    for (int64_t i = 0; i < lines.outputs; ++i) list[i] = source.words + i * source.row;
}

void Fold::run_columns(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end,
                       uint32_t* scratch) const {
    const size_t operands = nest_.operands.size();
    Tile tile{};
    tile.slots.resize(body_.slots);
    tile.rows.resize(body_.slots);
    tile.lines = scratch + body_.slots * kTileWords;
    for (int slot = 0; slot < body_.slots; ++slot) tile.slots[slot] = scratch + slot * kTileWords;
    for (size_t i = 0; i < nest_.immediates.size(); ++i) {
        kernels_.fill(tile.slots[operands + i], nest_.immediates[i], kTileWords);
    }
    uint32_t* const accumulator = tile.slots[body_.accumulator];

    const int64_t length = nest_.fold_length();
    for (int64_t start = begin; start < end; start += outputs_) {
        tile.start = start;
        tile.outputs = std::min(outputs_, end - start);
        tile.row = round_up(tile.outputs, kernels_.lanes);
        std::fill(tile.rows.begin(), tile.rows.end(), tile.row);
        std::fill_n(tile.rows.begin() + static_cast<int64_t>(operands), nest_.immediates.size(), 0);
        kernels_.fill(accumulator, nest_.init, tile.row);
        for (int64_t from = 0; from < length; from += folds_) {
            tile.from = from;
            tile.folds = std::min(folds_, length - from);
            load(tile, values);
            if (from == 0) run_passes(body_.once, tile, folds_);
            run_passes(body_.before, tile, tile.folds);
            fold(tile);
        }
        std::copy_n(accumulator, tile.outputs, out + start);
    }
}

void Fold::load(Tile& tile, const uint32_t* const* values) const {
    const int operands = static_cast<int>(nest_.operands.size());
    for (int o = 0; o < operands; ++o) {
        const Access& access = operands_.accesses[o];
        const uint32_t* tensor = operands_.tensor(o, values);
        const Walk& fold = operands_.fold[o];
        Position at = access.origin();
        switch (loads_[o]) {
            case Load::none: break;
            case Load::in_place:
                fold.move(at, tile.from);
                tile.slots[o] = const_cast<uint32_t*>(tensor + at[0] + tile.start);  // never written
                tile.rows[o] = fold.loops.empty() ? 0 : fold.loops[0].step[0];
                break;
            case Load::once:
                if (tile.from > 0) break;  // still there
                load_row(tile, o, tensor, at, 0);
                kernels_.copy_rows(tile.slots[o] + tile.row, tile.slots[o], 0, folds_ - 1, 1, tile.row);
                break;
            case Load::by_output: load_by_output(tile, o, tensor); break;
            case Load::by_fold: load_by_fold(tile, o, tensor); break;
        }
    }
}

void Fold::load_by_output(Tile& tile, int o, const uint32_t* tensor) const {
    Cursor cursor(operands_.fold[o], operands_.accesses[o].origin(), tile.from);
    for (int64_t f = 0; f < tile.folds; ++f, cursor.advance(1)) load_row(tile, o, tensor, cursor.at(), f);
}

// Loads an operand's row of outputs for iteration `f` of the tile, which is at `at`.
void Fold::load_row(Tile& tile, int o, const uint32_t* tensor, const Position& at, int64_t f) const {
    uint32_t* const out = tile.slots[o] + f * tile.row;
    if (operands_.patterns[o]) {
        operands_.patterns[o]->load(out, tensor, tile.start, tile.outputs, tile.from + f);
        return;
    }
    const Access& access = operands_.accesses[o];
    std::array<const uint32_t*, kMaxOperands> row{};
    for (int gathered : access.gathers()) row[gathered] = tile.slots[gathered] + f * tile.row;
    access.load(kernels_, out, tensor, operands_.outer[o], at, tile.start, tile.outputs, row.data());
}

void Fold::load_by_fold(Tile& tile, int o, const uint32_t* tensor) const {
    const Access& access = operands_.accesses[o];
    const Walk &outer = operands_.outer[o], &fold = operands_.fold[o];
    const bool in_place = access.contiguous(fold);
    std::array<const uint32_t*, kTransposedOutputs> lines;
    Cursor cursor(outer, access.origin(), tile.start);
    for (int64_t i = 0; i < tile.outputs; ++i, cursor.advance(1)) {
        if (in_place) {
            lines[i] = tensor + cursor.at()[0] + tile.from;
            continue;
        }
        uint32_t* const line = tile.lines + i * tile.folds;
        lines[i] = line;
        access.load(kernels_, line, tensor, fold, cursor.at(), tile.from, tile.folds, nullptr);
    }
    kernels_.transpose(tile.slots[o], tile.row, lines.data(), tile.outputs, tile.folds);
}

void Fold::run_passes(const std::vector<BodyPass>& passes, const Tile& tile, int64_t folds) const {
    for (const BodyPass& pass : passes) run_pass(pass, tile.slots.data(), tile.slots[pass.out], tile.row * folds);
}

void Fold::fold(const Tile& tile) const {
    uint32_t* const accumulator = tile.slots[body_.accumulator];
    if (body_.known) {
        const auto [step, x, y] = *body_.known;
        kernels_.fold[static_cast<int>(step)](accumulator, tile.slots[x], tile.rows[x], tile.slots[y], tile.rows[y],
                                              tile.folds, tile.outputs);
        return;
    }
    std::vector<uint32_t*> row(tile.slots);
    for (int64_t f = 0; f < tile.folds; ++f) {
        for (const BodyPass& pass : body_.fold) run_pass(pass, row.data(), row[pass.out], tile.row);
        if (body_.result != body_.accumulator) std::copy_n(row[body_.result], tile.row, accumulator);
        for (int slot : body_.advancing) row[slot] += tile.row;
    }
}

}  // namespace crowdtrain
