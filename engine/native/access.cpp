#include "access.hpp"

#include <algorithm>
#include <limits>

namespace crowdtrain {
namespace {

int64_t floor_divide(int64_t a, int64_t b) {  // b > 0
    return a / b - (a % b < 0);
}

// Smallest and largest value of an axis's affine form.
std::pair<int64_t, int64_t> range(const Nest& nest, const Axis& axis) {
    int64_t low = axis.offset, high = axis.offset;
    for (int loop = 0; loop < nest.loops(); ++loop) {
        const int64_t far = axis.coefficients[loop] * (nest.extent(loop) - 1);
        (far < 0 ? low : high) += far;
    }
    return {low, high};
}

bool is_inside(const Nest& nest, const Operand& operand) {
    return std::all_of(operand.axes.begin(), operand.axes.end(), [&](const Axis& axis) {
        if (axis.mode != Mode::affine) return false;
        const auto [low, high] = range(nest, axis);
        return low >= 0 && high < axis.size;
    });
}

// All axes of an access that stays inside, as one over the flat tensor.
Dimension flatten(const std::vector<Dimension>& dimensions) {
    Dimension flat{0, 1, Mode::affine, 1, 0, 0, {}};
    for (const Dimension& d : dimensions) {
        flat.offset += d.offset * d.stride;
        for (int loop = 0; loop < kMaxLoops; ++loop) flat.coefficients[loop] += d.coefficients[loop] * d.stride;
    }
    return flat;
}

}  // namespace

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
    walk.move(at_, flat);
    for (size_t i = walk.loops.size(); i-- > 0;) {
        index_[i] = flat % walk.loops[i].extent;
        flat /= walk.loops[i].extent;
    }
    if (!walk.loops.empty()) left_ = walk.loops.back().extent - index_[walk.loops.size() - 1];
}

void Cursor::advance(int64_t count) {
    const size_t rank = walk_.loops.size();
    if (rank == 0) return;
    const Walk::Loop& inner = walk_.loops[rank - 1];
    left_ -= count;
    if (left_ > 0) {
        for (int d = 0; d < walk_.dimensions; ++d) at_[d] += count * inner.step[d];
        return;
    }
    left_ = inner.extent;
    for (int d = 0; d < walk_.dimensions; ++d) at_[d] += (count - inner.extent) * inner.step[d];
    for (size_t i = rank - 1; i-- > 0;) {
        const Walk::Loop& loop = walk_.loops[i];
        const bool carry = ++index_[i] == loop.extent;
        const int64_t steps = carry ? 1 - loop.extent : 1;
        for (int d = 0; d < walk_.dimensions; ++d) at_[d] += steps * loop.step[d];
        if (!carry) return;
        index_[i] = 0;
    }
}

Access::Access(const Nest& nest, const Operand& operand) : nest_(nest), value_(operand.value), fill_(operand.fill) {
    is_index_ = operand.is_index();
    if (is_index_) {
        Dimension index{0, 1, Mode::affine, 1, 0, 0, {}};
        if (nest.extent(operand.loop) > 1) index.coefficients[operand.loop] = 1;
        dimensions_.push_back(index);
        inside_ = true;
        return;
    }
    int64_t stride = 1;
    for (size_t d = operand.axes.size(); d-- > 0;) {
        const Axis& axis = operand.axes[d];
        Dimension dimension{axis.size, stride, axis.mode, axis.divisor, axis.operand, axis.offset, axis.coefficients};
        for (int loop = 0; loop < nest.loops(); ++loop) {
            if (nest.extent(loop) == 1) dimension.coefficients[loop] = 0;
        }
        dimensions_.push_back(dimension);
        stride *= axis.size;
        if (axis.mode == Mode::gather) gathers_.push_back(axis.operand);
        divided_ |= axis.mode == Mode::exact || axis.mode == Mode::floor;
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

void Access::load(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk,
                  const Position& base, int64_t start, int64_t count, const uint32_t* const* operands) const {
    if (gathers_.empty()) {
        load_affine(kernels, out, tensor, walk, base, start, count);
        return;
    }
    // stretches over which all gathered positions stay the same
    for (int64_t from = 0; from < count;) {
        int64_t to = from + 1;
        const auto same = [&](int operand) { return operands[operand][to] == operands[operand][from]; };
        while (to < count && std::all_of(gathers_.begin(), gathers_.end(), same)) ++to;
        Position at = base;
        for (size_t d = 0; d < dimensions_.size(); ++d) {
            if (dimensions_[d].mode == Mode::gather) at[d] = operands[dimensions_[d].gather][from];
        }
        load_affine(kernels, out + from, tensor, walk, at, start + from, to - from);
        from = to;
    }
}

void Access::load_affine(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Walk& walk,
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

void Access::load_row(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Position& at,
                      const Position& step, int64_t count) const {
    if (is_index_) {
        kernels.iota(out, static_cast<uint32_t>(at[0]), static_cast<uint32_t>(step[0]), count);
    } else if (inside_) {
        kernels.copy_strided(out, tensor + at[0], step[0], count);
    } else if (divided_) {
        load_row_divided(out, tensor, at, step, count);
    } else {
        load_row_bounded(kernels, out, tensor, at, step, count);
    }
}

void Access::load_row_bounded(const Kernels& kernels, uint32_t* out, const uint32_t* tensor, const Position& at,
                              const Position& step, int64_t count) const {
    int64_t first = 0, last = count - 1;  // the stretch that is in range
    for (size_t d = 0; d < dimensions_.size(); ++d) {
        const int64_t size = dimensions_[d].size, a = at[d], s = step[d];
        if (s == 0) {
            if (a < 0 || a >= size) last = -1;
        } else if (s > 0) {
            first = std::max(first, -floor_divide(a, s));  // ceil(-a / s)
            last = std::min(last, floor_divide(size - 1 - a, s));
        } else {
            first = std::max(first, -floor_divide(size - 1 - a, -s));
            last = std::min(last, floor_divide(a, -s));
        }
    }
    if (first > last) {
        kernels.fill(out, fill_, count);
        return;
    }
    int64_t from = 0, stride = 0;
    for (size_t d = 0; d < dimensions_.size(); ++d) {
        from += (at[d] + first * step[d]) * dimensions_[d].stride;
        if (last > first) stride += step[d] * dimensions_[d].stride;
    }
    kernels.fill(out, fill_, first);
    kernels.copy_strided(out + first, tensor + from, stride, last - first + 1);
    kernels.fill(out + last + 1, fill_, count - last - 1);
}

void Access::load_row_divided(uint32_t* out, const uint32_t* tensor, const Position& at, const Position& step,
                              int64_t count) const {
    struct Moving {
        int64_t quotient, rest, quotient_step, rest_step;
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
        if (step[d] != 0) {
            const int64_t quotient_step = floor_divide(step[d], divisor);
            moving[moving_count++] = {quotient, rest, quotient_step, step[d] - quotient_step * divisor, &dimension};
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
            here &= p.quotient >= 0 && p.quotient < p.dimension->size && (p.dimension->mode != Mode::exact || p.rest == 0);
            if (here) from += p.quotient * p.dimension->stride;
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

}  // namespace crowdtrain
