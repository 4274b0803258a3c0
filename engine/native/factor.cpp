#include "factor.hpp"

#include <algorithm>
#include <array>

#include "rounding.hpp"

namespace crowdtrain {
namespace {

constexpr int kMaxTileColumns = 32;
constexpr int64_t kOverlap = 2;  // reads of each word from which on a copy pays
constexpr int64_t kMaxSpread = 16;        // words of a copy for each of the tensor
constexpr int64_t kMaxStage = 1 << 27;    // words of a copy

// Lines that are far apart are asked for some time before they are read: the processor does not foresee them.
constexpr int64_t kAhead = 12;
void fetch(const uint32_t* line, int64_t words) {
    constexpr int64_t kLine = 16, kMost = 128;
    for (int64_t i = 0; i < std::min(words, kMost); i += kLine) __builtin_prefetch(line + i);
}

int64_t count_of(const Nest& nest, const std::vector<int>& loops) {
    int64_t count = 1;
    for (int loop : loops) count *= nest.extent(loop);
    return count;
}

// How often the factor reads a word in all.
int64_t reads_of(const Nest& nest, const ContractionLoops& loops, const std::vector<int>& own) {
    return count_of(nest, loops.batch) * count_of(nest, own) * count_of(nest, loops.fold);
}

}  // namespace

// A copy of everything from the lowest to the highest position, if that is worth it. Exactly divided axes are spread
// out to the positions before division.
std::optional<Factor::Stage> Factor::make_stage(const Nest& nest, const Operand& operand, int64_t reads,
                                                const Kernels& kernels) {
    auto map = std::make_unique<Nest>();
    Operand& copied = map->operands.emplace_back(operand);
    Operand reader = operand;
    int64_t words = 1, tensor_words = 1;
    for (size_t d = 0; d < operand.axes.size(); ++d) {
        const Axis& axis = operand.axes[d];
        if (axis.mode == Mode::floor || axis.mode == Mode::gather) return std::nullopt;
        const auto [low, high] = affine_range(nest, axis);
        if (high - low >= reads / words) return std::nullopt;
        const int64_t extent = high - low + 1;
        words *= extent;
        tensor_words *= axis.size;
        map->outer.push_back(extent);
        copied.axes[d].offset = low;
        copied.axes[d].coefficients = {};
        copied.axes[d].coefficients[d] = 1;
        reader.axes[d].offset -= low;
        reader.axes[d].size = extent;
        reader.axes[d].mode = Mode::affine;
        reader.axes[d].divisor = 1;
    }
    if (words * kOverlap > reads || words > std::min(kMaxStage, kMaxSpread * tensor_words)) return std::nullopt;
    Access access(*map, copied);
    std::vector<int> all(map->outer.size());
    for (size_t d = 0; d < all.size(); ++d) all[d] = static_cast<int>(d);
    Walk walk = access.walk(all);
    std::optional<Pattern> pattern = Pattern::make(*map, copied, kernels);
    return Stage{std::move(map), std::move(reader), std::move(access), std::move(walk), std::move(pattern)};
}

Factor::Factor(const Nest& nest, const Operand& operand, const ContractionLoops& loops, const std::vector<int>& own,
               const Kernels& kernels)
    : value_(operand.value),
      stage_(Access(nest, operand).inside() ? std::nullopt : make_stage(nest, operand, reads_of(nest, loops, own), kernels)),
      access_(nest, stage_ ? stage_->reader : operand),
      batch_(access_.walk(loops.batch)),
      own_(access_.walk(own)),
      fold_(access_.walk(loops.fold)) {
    const int64_t along = access_.stride(fold_), across = access_.stride(own_);
    along_fold_ = along != 0 && (own_.loops.empty() || along < across);
    overlapping_ = stage_ || operand.words() * kOverlap <= reads_of(nest, loops, own);
}

void Factor::fill_stage(const Kernels& kernels, const uint32_t* tensor, uint32_t* stage, Workers& workers) const {
    workers.split(stage_->walk.count, stage_->walk.loops.back().extent, 1, [&](int64_t begin, int64_t end, int) {
        if (stage_->pattern) {
            stage_->pattern->load(stage + begin, tensor, begin, end - begin, 0);
            return;
        }
        stage_->access.load(kernels, stage + begin, tensor, stage_->walk, stage_->access.origin(), begin, end - begin,
                            nullptr);
    });
}

int64_t Factor::run() const {
    if (!access_.inside() || fold_.loops.empty() || fold_.loops.back().step[0] != 1) return 1;
    return fold_.loops.back().extent;
}

Position Factor::base(int64_t b) const {
    Position at = access_.origin();
    batch_.move(at, b);
    return at;
}

void Factor::own_offsets(const Kernels& kernels, int64_t first, int64_t count, int32_t* offsets) const {
    list_offsets(kernels, own_, first, count, offsets);
}

void Factor::fold_offsets(const Kernels& kernels, int64_t first, int64_t count, int32_t* offsets) const {
    list_offsets(kernels, fold_, first, count, offsets);
}

void Factor::pack(const Kernels& kernels, const uint32_t* source, const Position& base, int64_t first, int64_t count,
                  int64_t k, int64_t depth, const Panels& panels, uint32_t* lines) const {
    if (along_fold_) {
        pack_along(kernels, source, base, first, count, k, depth, panels, lines);
    } else {
        pack_across(kernels, source, base, first, count, k, depth, panels, lines);
    }
}

// From lines of words along k, transposed.
void Factor::pack_along(const Kernels& kernels, const uint32_t* source, const Position& base, int64_t first,
                        int64_t count, int64_t k, int64_t depth, const Panels& panels, uint32_t* lines) const {
    Position start{};
    const Cursor at_k(fold_, start, k);
    const bool in_place = run() > 1 && at_k.left() >= depth;
    std::array<const uint32_t*, kMaxTileColumns> line;
    Cursor cursor(own_, base, first);
    uint32_t* panel = panels.words;
    for (int64_t i = 0; i < count; i += panels.width, panel += panels.stride) {
        const int64_t line_count = std::min(panels.width, count - i), width = round_up(line_count, panels.unit);
        for (int64_t j = 0; j < line_count; ++j, cursor.advance(1)) {
            if (in_place) {
                line[j] = source + cursor.at()[0] + at_k.at()[0];
                fetch(line[j], depth);
                continue;
            }
            uint32_t* const copy = lines + j * depth;
            line[j] = copy;
            access_.load(kernels, copy, source, fold_, cursor.at(), k, depth, nullptr);
        }
        if (panels.unit == 1) {
            kernels.transpose_panel(panel, line.data(), line_count, depth);
            continue;
        }
        kernels.transpose(panel, width, line.data(), line_count, depth);
        for (int64_t f = 0; f < depth && line_count < width; ++f) {
            std::fill(panel + f * width + line_count, panel + (f + 1) * width, 0);
        }
    }
}

// From lines of words across k, cut into pieces.
void Factor::pack_across(const Kernels& kernels, const uint32_t* source, const Position& base, int64_t first,
                         int64_t count, int64_t k, int64_t depth, const Panels& panels, uint32_t* lines) const {
    const int64_t whole = count / panels.width, rest = count % panels.width, last_width = round_up(rest, panels.unit);
    uint32_t* const last = panels.words + whole * panels.stride;
    const auto spread = panels.unit == 1 ? kernels.spread_rows : kernels.spread_columns;
    const bool in_place = access_.contiguous(own_);
    const int64_t step = fold_.loops.empty() ? 0 : fold_.loops.back().step[0];
    Cursor cursor(fold_, base, k);
    for (int64_t f = 0; f < depth;) {
        const uint32_t* line = lines;
        int64_t some = 1;
        if (in_place) {
            line = source + cursor.at()[0] + first;
            some = std::min(depth - f, cursor.left());
        } else {
            access_.load(kernels, lines, source, own_, cursor.at(), first, count, nullptr);
        }
        spread(panels.words + f * panels.width, panels.stride, line, step, some, whole);
        for (int64_t i = 0; i < some && rest > 0; ++i, line += step) {
            uint32_t* const to = last + (f + i) * last_width;
            std::copy_n(line + whole * panels.width, rest, to);
            std::fill(to + rest, to + last_width, 0);
        }
        cursor.advance(some);
        f += some;
    }
}

}  // namespace crowdtrain
