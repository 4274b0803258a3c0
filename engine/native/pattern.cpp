#include "pattern.hpp"

#include <algorithm>

#include "rounding.hpp"

namespace crowdtrain {
namespace {

constexpr int64_t kMaxEntries = 1 << 14;
constexpr int64_t kOutputsForEntry = 2 * kMaxOperands;  // an entry and its windows are two words
constexpr int64_t kShortRow = 64;
constexpr int64_t kOutOfRange = -1;

// The position along an axis for a value of its affine form, or kOutOfRange.
int64_t position(const Axis& axis, int64_t form) {
    if (form < 0 || form >= axis.size * axis.divisor) return kOutOfRange;
    if (axis.mode == Mode::exact && form % axis.divisor != 0) return kOutOfRange;
    return form / axis.divisor;
}

bool moved_by(const Nest& nest, const Axis& axis, int first, int last) {
    for (int loop = first; loop < last; ++loop) {
        if (axis.coefficients[loop] != 0 && nest.extent(loop) > 1) return true;
    }
    return false;
}

}  // namespace

std::optional<Pattern> Pattern::make(const Nest& nest, const Operand& operand, const Kernels& kernels) {
    const int outer = static_cast<int>(nest.outer.size());
    const auto gathered = [](const Axis& axis) { return axis.mode == Mode::gather; };
    if (std::any_of(operand.axes.begin(), operand.axes.end(), gathered)) return std::nullopt;
    const Access access(nest, operand);
    std::vector<int> loops(nest.outer.size());
    for (int loop = 0; loop < outer; ++loop) loops[loop] = loop;
    const Walk walk = access.walk(loops);
    if (walk.loops.size() < 2 || walk.loops.back().extent >= kShortRow) return std::nullopt;

    int first_inner = outer;
    int64_t entries = nest.fold_length();
    // small beside the output, so that the tables of a hostile program take no more than its values are said to
    const int64_t most = std::min(kMaxEntries, nest.words() / kOutputsForEntry);
    if (entries > most) return std::nullopt;
    while (first_inner > 0 && entries * nest.extent(first_inner - 1) <= most) {
        entries *= nest.extent(--first_inner);
    }
    if (entries < 2 * walk.loops.back().extent * nest.fold_length()) return std::nullopt;
    // no dimension may be moved by loops of both kinds
    const auto mixed = [&](const Axis& axis) {
        return moved_by(nest, axis, 0, first_inner) && moved_by(nest, axis, first_inner, nest.loops());
    };
    if (std::any_of(operand.axes.begin(), operand.axes.end(), mixed)) return std::nullopt;
    if (operand.is_index() && operand.loop < first_inner) return std::nullopt;
    return Pattern(nest, operand, kernels, first_inner);
}

Pattern::Pattern(const Nest& nest, const Operand& operand, const Kernels& kernels, int first_inner)
    : nest_(nest), operand_(operand), kernels_(kernels), first_inner_(first_inner) {
    for (size_t loop = first_inner; loop < nest.outer.size(); ++loop) plane_ *= nest.outer[loop];
    std::vector<int64_t> strides(operand.axes.size(), 1);
    for (size_t d = operand.axes.size(); d-- > 1;) strides[d - 1] = strides[d] * operand.axes[d].size;
    for (size_t d = 0; d < operand.axes.size(); ++d) {
        if (!moved_by(nest, operand.axes[d], first_inner, nest.loops())) outer_.push_back({&operand.axes[d], strides[d]});
    }
    list(strides);
    if (!operand.is_index()) list_windows();
}

void Pattern::list(const std::vector<int64_t>& strides) {
    std::vector<int64_t> index(nest_.loops());
    const int64_t entries = nest_.fold_length() * plane_;
    const auto outer = static_cast<int>(nest_.outer.size());
    table_.reserve(entries);
    for (int64_t entry = 0; entry < entries; ++entry) {
        int64_t flat = entry;
        for (int loop = outer; loop-- > first_inner_; flat /= nest_.extent(loop)) index[loop] = flat % nest_.extent(loop);
        for (int loop = nest_.loops(); loop-- > outer; flat /= nest_.extent(loop)) index[loop] = flat % nest_.extent(loop);
        int64_t offset = operand_.is_index() ? index[operand_.loop] : 0;
        for (size_t d = 0; d < operand_.axes.size() && offset != kOutOfRange; ++d) {
            const Axis& axis = operand_.axes[d];
            if (!moved_by(nest_, axis, first_inner_, nest_.loops())) continue;
            int64_t form = axis.offset;
            for (int loop = first_inner_; loop < nest_.loops(); ++loop) form += axis.coefficients[loop] * index[loop];
            const int64_t at = position(axis, form);
            offset = at == kOutOfRange ? kOutOfRange : offset + at * strides[d];
        }
        table_.push_back(static_cast<int32_t>(offset));
    }
}

void Pattern::list_windows() {
    const int32_t last = *std::max_element(table_.begin(), table_.end());
    for (size_t row = 0; row < table_.size(); row += plane_) {
        for (int64_t i = 0; i + kernels_.lanes <= plane_; i += kernels_.lanes) {
            windows_.push_back(windows_of(table_.data() + row + i, last));
        }
    }
}

// Of a vector of offsets, none of which is beyond `last`: nor are the words of any window.
Windows Pattern::windows_of(const int32_t* offsets, int32_t last) {
    constexpr Windows kScattered{{-1}};
    const int32_t lanes = kernels_.lanes;
    if (last + 1 < lanes) return kScattered;
    Windows windows{};
    int32_t from = 0;  // offsets below it are in a window
    for (int used = 0;; ++used) {
        int32_t next = last + 1;
        for (int i = 0; i < lanes; ++i) {
            if (offsets[i] >= from) next = std::min(next, offsets[i]);
        }
        if (next > last) {
            windows_used_ = std::max(windows_used_, used);
            return windows;
        }
        if (used == Windows::kMost) return kScattered;
        windows.at[used] = std::min(next, last + 1 - lanes);
        from = windows.at[used] + lanes;
    }
}

int64_t Pattern::base(int64_t plane) const {
    std::array<int64_t, kMaxRank> index{};
    for (int loop = first_inner_; loop-- > 0; plane /= nest_.extent(loop)) index[loop] = plane % nest_.extent(loop);
    int64_t at = 0;
    for (const auto& [axis, stride] : outer_) {
        int64_t form = axis->offset;
        for (int loop = 0; loop < first_inner_; ++loop) form += axis->coefficients[loop] * index[loop];
        const int64_t here = position(*axis, form);
        if (here == kOutOfRange) return kOutOfRange;
        at += here * stride;
    }
    return at;
}

void Pattern::load(uint32_t* out, const uint32_t* tensor, int64_t start, int64_t count, int64_t fold) const {
    const int64_t lanes = kernels_.lanes;
    int64_t plane = start / plane_, within = start % plane_;
    for (; count > 0; ++plane, within = 0) {
        const int64_t run = std::min(count, plane_ - within);
        const int32_t* const entries = table_.data() + fold * plane_ + within;
        if (operand_.is_index()) {
            std::copy_n(entries, run, reinterpret_cast<int32_t*>(out));
        } else if (const int64_t at = base(plane); at == kOutOfRange) {
            kernels_.fill(out, operand_.fill, run);
        } else {
            const uint32_t* const in = tensor + at;
            const int64_t first = std::min(run, round_up(within, lanes) - within), vectors = (run - first) / lanes;
            const int64_t rest = first + vectors * lanes;
            const Windows* const windows = windows_.data() + fold * (plane_ / lanes) + (within + first) / lanes;
            kernels_.gather(out, in, entries, operand_.fill, first);
            kernels_.pick(out + first, in, entries + first, windows, windows_used_, operand_.fill, vectors);
            kernels_.gather(out + rest, in, entries + rest, operand_.fill, run - rest);
        }
        out += run;
        count -= run;
    }
}

}  // namespace crowdtrain
