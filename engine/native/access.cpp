#include "access.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

namespace crowdtrain {
namespace {

int64_t floor_divide(int64_t a, int64_t b) {  // b > 0
    return a / b - (a % b < 0);
}

// No affine form of a valid nest reaches it, and distances to it fit into 64 bits.
constexpr int64_t kBeyond = int64_t{1} << 62;

bool is_inside(const Nest& nest, const Operand& operand) {
    return std::all_of(operand.axes.begin(), operand.axes.end(), [&](const Axis& axis) {
        if (axis.mode != Mode::affine) return false;
        const auto [low, high] = affine_range(nest, axis);
        return low >= 0 && high < axis.size;
    });
}

// All axes of an access that stays inside, as one over the flat tensor.
Dimension flatten(const std::vector<Dimension>& dimensions) {
    Dimension flat{0, 1, Mode::affine, 1, 0, 0, 0, {}};
    for (const Dimension& d : dimensions) {
        flat.offset += d.offset * d.stride;
        for (int loop = 0; loop < kMaxLoops; ++loop) flat.coefficients[loop] += d.coefficients[loop] * d.stride;
    }
    return flat;
}

}  // namespace

Operand output_of(const Nest& nest) {
    Operand out;
    for (size_t loop = 0; loop < nest.outer.size(); ++loop) {
        out.axes.emplace_back().size = nest.outer[loop];
        out.axes.back().coefficients[loop] = 1;
    }
    return out;
}

bool reads_by_rows(const Nest& nest, const Operand& operand, int64_t rows) {
    if (operand.is_index()) return true;
    // the loops that count rows, and how many rows each moves by
    std::array<int64_t, kMaxLoops> row_step{};
    size_t leading = 0;
    int64_t product = 1;
    while (leading < nest.outer.size() && product < rows) product *= nest.outer[leading++];
    if (product != rows) return false;
    for (size_t loop = leading; loop-- > 0; product /= nest.outer[loop]) row_step[loop] = rows / product;

    const int64_t words = operand.words();
    if (words % rows != 0) return false;
    // The axes as one over flat words, as far as they are inside; these must make up whole rows at least.
    int64_t stride = words, offset = 0, low = 0, high = 0;
    std::array<int64_t, kMaxLoops> flat{};
    for (const Axis& axis : operand.axes) {
        const auto [least, most] = affine_range(nest, axis);
        const bool inside = axis.mode == Mode::affine && least >= 0 && most < axis.size;
        if (!inside) {
            if (words / stride < rows) return false;
            high += stride - 1;  // anywhere
            break;
        }
        stride /= axis.size;
        offset += axis.offset * stride;
        for (int loop = 0; loop < nest.loops(); ++loop) {
            if (nest.extent(loop) > 1) flat[loop] += axis.coefficients[loop] * stride;
        }
    }
    const int64_t row_words = words / rows;
    low += offset;
    high += offset;
    for (int loop = 0; loop < nest.loops(); ++loop) {
        if (nest.extent(loop) == 1) continue;
        const bool counts = loop < static_cast<int>(leading);
        if (counts && flat[loop] != row_step[loop] * row_words) return false;
        if (!counts) (flat[loop] < 0 ? low : high) += flat[loop] * (nest.extent(loop) - 1);
    }
    return low >= 0 && high < row_words;
}

std::pair<int64_t, int64_t> affine_range(const Nest& nest, const Axis& axis) {
    int64_t low = axis.offset, high = axis.offset;
    for (int loop = 0; loop < nest.loops(); ++loop) {
        const int64_t far = axis.coefficients[loop] * (nest.extent(loop) - 1);
        (far < 0 ? low : high) += far;
    }
    return {low, high};
}

void Walk::move(Position& at, int64_t flat) const {
    for (size_t i = loops.size(); i-- > 0;) {
        const Loop& loop = loops[i];
        const int64_t index = i == 0 ? flat : flat % loop.extent;
        if (i > 0) flat /= loop.extent;
        for (int d = 0; d < dimensions; ++d) at[d] += index * loop.step[d];
    }
}

Cursor::Cursor(const Walk& walk, const Position& base, int64_t flat)
    : walk_(walk), at_(base), left_(std::numeric_limits<int64_t>::max()) {
    for (size_t i = walk.loops.size(); i-- > 0;) {
        const int64_t rest = i == 0 ? 0 : flat / walk.loops[i].extent;
        index_[i] = flat - rest * walk.loops[i].extent;
        if (index_[i] != 0) move(index_[i], walk.loops[i]);
        flat = rest;
    }
    if (!walk.loops.empty()) left_ = walk.loops.back().extent - index_[walk.loops.size() - 1];
}

void Cursor::advance(int64_t count) {
    const size_t rank = walk_.loops.size();
    if (rank == 0) return;
    const Walk::Loop& inner = walk_.loops[rank - 1];
    left_ -= count;
    move(count, inner);
    if (left_ > 0) return;
    left_ = inner.extent;
    move(-inner.extent, inner);
    carry(rank - 1, 1);
}

int64_t Cursor::whole_rows() const {
    const size_t rank = walk_.loops.size();
    if (rank < 2 || left_ < walk_.loops[rank - 1].extent) return 0;
    return walk_.loops[rank - 2].extent - index_[rank - 2];
}

void Cursor::advance_rows(int64_t rows) { carry(walk_.loops.size() - 1, rows); }

void Cursor::move(int64_t count, const Walk::Loop& loop) {
    for (int d = 0; d < walk_.dimensions; ++d) at_[d] += count * loop.step[d];
}

void Cursor::carry(size_t loop, int64_t count) {
    for (size_t i = loop; i-- > 0; count = 1) {
        move(count, walk_.loops[i]);
        index_[i] += count;
        if (index_[i] < walk_.loops[i].extent) return;
        move(-walk_.loops[i].extent, walk_.loops[i]);
        index_[i] = 0;
    }
}

Access::Access(const Nest& nest, const Operand& operand) : nest_(nest), value_(operand.value), fill_(operand.fill) {
    is_index_ = operand.is_index();
    if (is_index_) {
        Dimension index{0, 1, Mode::affine, 1, 0, 0, 0, {}};
        if (nest.extent(operand.loop) > 1) index.coefficients[operand.loop] = 1;
        dimensions_.push_back(index);
        inside_ = true;
        return;
    }
    int64_t stride = 1;
    for (size_t d = operand.axes.size(); d-- > 0;) {
        const Axis& axis = operand.axes[d];
        Dimension dimension{axis.size,    stride,      axis.mode,        axis.divisor, std::min(axis.size * axis.divisor, kBeyond),
                            axis.operand, axis.offset, axis.coefficients};
        for (int loop = 0; loop < nest.loops(); ++loop) {
            if (nest.extent(loop) == 1) dimension.coefficients[loop] = 0;
        }
        dimensions_.push_back(dimension);
        stride *= axis.size;
        if (axis.mode == Mode::gather) gathers_.push_back(axis.operand);
    }
    inside_ = is_inside(nest, operand);
    if (inside_) dimensions_ = {flatten(dimensions_)};
}

Walk Access::walk(const std::vector<int>& loops) const {
    Walk walk;
    walk.dimensions = static_cast<int>(dimensions_.size());
    for (size_t i = loops.size(); i-- > 0;) {
        const int64_t extent = nest_.extent(loops[i]);
        walk.count *= extent;
        if (extent == 1) continue;
        Position step{};
        for (size_t d = 0; d < dimensions_.size(); ++d) step[d] = dimensions_[d].coefficients[loops[i]];
        bool even = !walk.loops.empty();
        for (size_t d = 0; d < dimensions_.size() && even; ++d) {
            even = step[d] == walk.loops.back().step[d] * walk.loops.back().extent;
        }
        if (even) {
            walk.loops.back().extent *= extent;
        } else {
            walk.loops.push_back({extent, step});
        }
    }
    std::reverse(walk.loops.begin(), walk.loops.end());
    return walk;
}

Position Access::origin() const {
    Position at{};
    for (size_t d = 0; d < dimensions_.size(); ++d) at[d] = dimensions_[d].offset;
    return at;
}

int64_t Access::stride(const Walk& walk) const {
    constexpr int64_t kFar = int64_t{1} << 40;
    if (walk.loops.empty()) return 0;
    if (is_index_) return 1;
    int64_t words = 0;
    for (size_t d = 0; d < dimensions_.size(); ++d) {
        const int64_t step = walk.loops.back().step[d];
        if (step == 0) continue;
        if (std::abs(step) > kFar / dimensions_[d].stride) return kFar;
        words += std::max<int64_t>(1, std::abs(step) / dimensions_[d].divisor) * dimensions_[d].stride;
    }
    return words;
}

bool Access::contiguous(const Walk& walk) const {
    return !is_index_ && inside_ && walk.loops.size() == 1 && walk.loops[0].step[0] == 1;
}

bool Access::in_rows(const Walk& walk) const {
    if (is_index_ || !inside_ || walk.loops.empty()) return false;
    const int64_t step = walk.loops.back().step[0];
    return step == 0 || step == 1;
}

bool Access::in_columns(const Walk& walk) const {
    const size_t rank = walk.loops.size();
    return !is_index_ && inside_ && rank > 1 && walk.loops[rank - 1].step[0] > 1 && walk.loops[rank - 2].step[0] == 1;
}

void Access::load(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk,
                  const Position& base, int64_t start, int64_t count, const uint32_t* const* operands) const {
    if (inside_) {
        load_inside(kernels, out, tensor, walk, base[0], start, count);
    } else if (gathers_.empty()) {
        load_bounded(kernels, out, tensor, walk, base, start, count);
    } else {
        load_gathered(kernels, out, tensor, walk, base, start, count, operands);
    }
}

void Access::load_inside(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk, int64_t base,
                         int64_t start, int64_t count) const {
    const size_t rank = walk.loops.size();
    const int64_t step = rank > 0 ? walk.loops[rank - 1].step[0] : 0;
    const int64_t row_step = rank > 1 ? walk.loops[rank - 2].step[0] : 0;
    Position origin{};
    origin[0] = base;
    Cursor cursor(walk, origin, start);
    while (count > 0) {
        const int64_t at = cursor.at()[0], run = std::min(count, cursor.left());
        if (is_index_) {
            kernels.iota(out, static_cast<uint32_t>(at), static_cast<uint32_t>(step), run);
        } else if (const int64_t rows = std::min(cursor.whole_rows(), count / run); rows > 1) {
            kernels.copy_rows(out, tensor + at, row_step, rows, step, run);
            out += rows * run;
            count -= rows * run;
            cursor.advance_rows(rows);
            continue;
        } else {
            kernels.copy_strided(out, 1, tensor + at, step, run);
        }
        out += run;
        count -= run;
        cursor.advance(run);
    }
}

void Access::load_bounded(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk,
                          const Position& base, int64_t start, int64_t count) const {
    static constexpr Position kStill{};
    const Position& step = walk.loops.empty() ? kStill : walk.loops.back().step;
    Cursor cursor(walk, base, start);
    for (;;) {
        const int64_t run = std::min(count, cursor.left());
        load_row(kernels, out, tensor, cursor.at(), step, run);
        out += run;
        count -= run;
        if (count == 0) return;
        cursor.advance(run);
    }
}

// Of evenly spaced positions the first and the last that are in range; the last before the first if none is.
std::pair<int64_t, int64_t> Access::in_range(const Position& at, const Position& step, int64_t count) const {
    int64_t first = 0, last = count - 1;
    for (size_t d = 0; d < dimensions_.size(); ++d) {
        const Dimension& dimension = dimensions_[d];
        const int64_t a = at[d], s = step[d], end = dimension.limit - 1;
        if (s == 0) {
            if (a < 0 || a > end || (dimension.mode == Mode::exact && a % dimension.divisor != 0)) last = -1;
            continue;
        }
        first = std::max(first, s == 1 ? -a : s > 0 ? -floor_divide(a, s) : -floor_divide(end - a, -s));
        last = std::min(last, s == 1 ? end - a : s > 0 ? floor_divide(end - a, s) : floor_divide(a, -s));
    }
    return {first, last};
}

// A row of evenly spaced positions, some of them out of range.
void Access::load_row(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Position& at,
                      const Position& step, int64_t count) const {
    const auto [first, last] = in_range(at, step, count);
    if (first > last) {
        kernels.fill(out, fill_, count);
        return;
    }
    const Dimension* divided = nullptr;  // of the dimensions that move
    int divided_count = 0;
    int64_t from = 0, stride = 0;        // of the first in range; of dimensions that are not divided
    for (size_t d = 0; d < dimensions_.size(); ++d) {
        const Dimension& dimension = dimensions_[d];
        const int64_t a = at[d] + first * step[d];
        from += (dimension.divisor == 1 ? a : a / dimension.divisor) * dimension.stride;
        if (dimension.divisor == 1 && last > first) stride += step[d] * dimension.stride;
        if (dimension.divisor > 1 && step[d] != 0) {
            divided = &dimension;
            ++divided_count;
        }
    }
    const int64_t length = last - first + 1;
    if (divided_count == 0) {
        kernels.fill(out, fill_, first);
        kernels.copy_strided(out + first, 1, tensor + from, stride, length);
        kernels.fill(out + last + 1, fill_, count - last - 1);
    } else if (divided_count == 1 && divided->mode == Mode::exact && stride == 0) {
        kernels.fill(out, fill_, count);
        // from the first that divides on, every period-th does
        const int64_t a = at[divided - dimensions_.data()], s = step[divided - dimensions_.data()];
        const int64_t divisor = divided->divisor, period = divisor / std::gcd(std::abs(s), divisor);
        int64_t i = first;
        while (i <= last && (a + i * s) % divisor != 0) i = i - first < period ? i + 1 : count;
        if (i > last) return;
        const int64_t skipped = (a + i * s) / divisor - (a + first * s) / divisor;
        kernels.copy_strided(out + i, period, tensor + from + skipped * divided->stride,
                             last - i >= period ? period * s / divisor * divided->stride : 0, (last - i) / period + 1);
    } else {
        kernels.fill(out, fill_, first);
        Position begin = at;
        for (size_t d = 0; d < dimensions_.size(); ++d) begin[d] += first * step[d];
        load_elements(out + first, tensor, begin, step, length, nullptr, 0);
        kernels.fill(out + last + 1, fill_, count - last - 1);
    }
}

void Access::copy(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk, const Position& base,
                  int64_t start, int64_t count) const {
    static constexpr Position kStill{};
    const Position& step = walk.loops.empty() ? kStill : walk.loops.back().step;
    Cursor cursor(walk, base, start);
    for (;;) {
        const int64_t run = std::min(count, cursor.left());
        const auto [first, last] = inside_ ? std::pair(int64_t{0}, run - 1) : in_range(cursor.at(), step, run);
        if (first <= last) {
            const int64_t length = last - first + 1;
            int64_t from = 0, stride = 0;
            for (size_t d = 0; d < dimensions_.size(); ++d) {
                from += cursor.at()[d] * dimensions_[d].stride;
                stride += step[d] * dimensions_[d].stride;
            }
            kernels.copy_strided(out + first, 1, tensor + from + first * stride, length > 1 ? stride : 0, length);
        }
        out += run;
        count -= run;
        if (count == 0) return;
        cursor.advance(run);
    }
}

void Access::load_gathered(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk,
                           const Position& base, int64_t start, int64_t count, const uint32_t* const* operands) const {
    constexpr int64_t kLong = 8;
    static constexpr Position kStill{};
    const Position& step = walk.loops.empty() ? kStill : walk.loops.back().step;
    Cursor cursor(walk, base, start);
    for (int64_t from = 0; from < count;) {
        const int64_t run = std::min(count - from, cursor.left());
        // the stretch over which all gathered positions stay the same
        int64_t same = 1;
        const auto stays = [&](int operand) { return operands[operand][from + same] == operands[operand][from]; };
        while (same < run && std::all_of(gathers_.begin(), gathers_.end(), stays)) ++same;
        if (same == run || same >= kLong) {
            Position at = cursor.at();
            for (size_t d = 0; d < dimensions_.size(); ++d) {
                if (dimensions_[d].mode == Mode::gather) at[d] = operands[dimensions_[d].gather][from];
            }
            load_row(kernels, out + from, tensor, at, step, same);
        } else {
            same = std::min<int64_t>(run, 8 * kLong);
            load_elements(out + from, tensor, cursor.at(), step, same, operands, from);
        }
        from += same;
        if (from < count) cursor.advance(same);
    }
}

// One position after another; those of gathers are operands[…][first + i], or without operands where `at` says.
void Access::load_elements(uint32_t* out, const uint32_t* tensor, const Position& at, const Position& step,
                           int64_t count, const uint32_t* const* operands, int64_t first) const {
    struct Moving {
        int64_t quotient, rest, quotient_step, rest_step;  // of the affine form by the divisor
        const uint32_t* words;                             // of the operand gathered by
        const Dimension* dimension;
    };
    std::array<Moving, kMaxRank> moving;
    size_t moving_count = 0;
    int64_t fixed = 0;
    bool in_range = true;
    for (size_t d = 0; d < dimensions_.size(); ++d) {
        const Dimension& dimension = dimensions_[d];
        const int64_t divisor = dimension.divisor;
        const int64_t quotient = floor_divide(at[d], divisor), rest = at[d] - quotient * divisor;
        if (dimension.mode == Mode::gather && operands != nullptr) {
            moving[moving_count++] = {0, 0, 0, 0, operands[dimension.gather] + first, &dimension};
        } else if (step[d] != 0) {
            const int64_t quotient_step = floor_divide(step[d], divisor);
            const int64_t rest_step = step[d] - quotient_step * divisor;
            moving[moving_count++] = {quotient, rest, quotient_step, rest_step, nullptr, &dimension};
        } else if (quotient < 0 || quotient >= dimension.size || (dimension.mode == Mode::exact && rest != 0)) {
            in_range = false;
        } else {
            fixed += quotient * dimension.stride;
        }
    }
    for (int64_t i = 0; i < count; ++i) {
        int64_t from = fixed;
        bool here = in_range;
        for (size_t m = 0; m < moving_count; ++m) {
            Moving& p = moving[m];
            const int64_t position = p.words ? p.words[i] : p.quotient;
            here &= position >= 0 && position < p.dimension->size && (p.dimension->mode != Mode::exact || p.rest == 0);
            if (here) from += position * p.dimension->stride;
            p.quotient += p.quotient_step;
            p.rest += p.rest_step;
            if (p.rest >= p.dimension->divisor) {
                p.rest -= p.dimension->divisor;
                ++p.quotient;
            }
        }
        out[i] = here ? tensor[from] : fill_;
    }
}

void list_offsets(const Kernels& kernels, const Walk& walk, int64_t first, int64_t count, int32_t* offsets) {
    Cursor cursor(walk, Position{}, first);
    const int64_t step = walk.loops.empty() ? 0 : walk.loops.back().step[0];
    for (auto* out = reinterpret_cast<uint32_t*>(offsets);;) {
        const int64_t run = std::min(count, cursor.left());
        kernels.iota(out, static_cast<uint32_t>(cursor.at()[0]), static_cast<uint32_t>(step), run);
        out += run;
        count -= run;
        if (count == 0) return;
        cursor.advance(run);
    }
}

}  // namespace crowdtrain
