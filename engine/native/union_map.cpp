#include "union_map.hpp"

#include <algorithm>

#include "generated.hpp"

namespace crowdtrain {
namespace {

// For each outer loop the first index at which an operand is in range, and the one after the last.
using Box = std::vector<std::pair<int64_t, int64_t>>;

// The box of an operand all of whose positions follow a loop of their own, one by one, or stay inside.
std::optional<Box> box_of(const Nest& nest, const Operand& operand) {
    if (operand.is_index() || operand.fill != 0) return std::nullopt;
    Box box;
    for (int64_t extent : nest.outer) box.emplace_back(0, extent);
    for (const Axis& axis : operand.axes) {
        if (axis.mode != Mode::affine) return std::nullopt;
        const auto [low, high] = affine_range(nest, axis);
        if (low >= 0 && high < axis.size) continue;
        int only = -1;
        for (int loop = 0; loop < nest.loops(); ++loop) {
            if (axis.coefficients[loop] == 0 || nest.extent(loop) == 1) continue;
            if (only >= 0 || axis.coefficients[loop] != 1) return std::nullopt;
            only = loop;
        }
        if (only < 0) return std::nullopt;
        auto& [first, last] = box[only];
        first = std::max(first, -axis.offset);
        last = std::min(last, axis.size - axis.offset);
        if (first >= last) return std::nullopt;
    }
    return box;
}

bool apart(const Box& a, const Box& b) {
    for (size_t loop = 0; loop < a.size(); ++loop) {
        if (a[loop].second <= b[loop].first || b[loop].second <= a[loop].first) return true;
    }
    return false;
}

// Whether the body is the `or` of all operands, each at least once.
bool joins_operands(const Nest& nest) {
    std::vector<bool> joined(nest.first_instruction() + nest.body.size());
    joined[nest.result] = true;
    for (size_t i = nest.body.size(); i-- > 0;) {
        if (!joined[nest.first_instruction() + i]) continue;
        if (nest.body[i].code != static_cast<uint8_t>(Opcode::ior)) return false;
        for (int r = 0; r < 2; ++r) joined[nest.body[i].refs[r]] = true;
    }
    for (int ref = 1; ref < nest.first_immediate(); ++ref) {
        if (!joined[ref]) return false;
    }
    return std::none_of(joined.begin() + nest.first_immediate(), joined.begin() + nest.first_instruction(),
                        [](bool is) { return is; });
}

}  // namespace

std::unique_ptr<Union> Union::make(const Nest& nest, const Kernels& kernels) {
    if (!nest.fold.empty() || nest.operands.size() < 2 || !joins_operands(nest)) return nullptr;
    std::vector<Box> boxes;
    int64_t covered = 0;
    for (const Operand& operand : nest.operands) {
        const std::optional<Box> box = box_of(nest, operand);
        if (!box || !std::all_of(boxes.begin(), boxes.end(), [&](const Box& other) { return apart(other, *box); })) {
            return nullptr;
        }
        int64_t words = 1;
        for (const auto& [first, last] : *box) words *= last - first;
        covered += words;
        boxes.push_back(*box);
    }
    return std::unique_ptr<Union>(new Union(nest, kernels, covered == nest.words()));
}

Union::Union(const Nest& nest, const Kernels& kernels, bool covers)
    : RowPlan(nest), kernels_(kernels), operands_(nest, kernels), covers_(covers) {}

void Union::run_part(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end, uint32_t*) const {
    if (!covers_) kernels_.fill(out + begin, 0, end - begin);
    for (int o = 0; o < operands_.count(); ++o) {
        const Access& access = operands_.accesses[o];
        access.copy(kernels_, out + begin, operands_.tensor(o, values), operands_.outer[o], access.origin(), begin, end - begin);
    }
}

}  // namespace crowdtrain
