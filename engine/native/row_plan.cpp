#include "row_plan.hpp"

#include <algorithm>

#include "access.hpp"
#include "rounding.hpp"

namespace crowdtrain {
namespace {

constexpr size_t kMostNests = 32;
constexpr int64_t kLeastRows = 32;             // fewer are not worth a group
constexpr int64_t kBlockWords = 1 << 16;       // that a block of rows touches: part of the second-level cache
constexpr int64_t kLargestRow = 1 << 16;       // words that a row may touch
constexpr int64_t kWorthwhile = 1 << 15;       // words touched that are worth a thread
constexpr int64_t kUnit = 64;                  // words: blocks are multiples of it where rows are short

}  // namespace

void RowPlan::run(const uint32_t* const* values, uint32_t* out, Workers& workers) const {
    workers.split(nest_.words(), grain(), cost(), [&](int64_t begin, int64_t end, int thread) {
        run_part(values, out, begin, end, workers.scratch[thread].words(scratch_words()));
    });
}

bool RowGroup::gives(int value) const {
    return std::any_of(members_.begin(), members_.end(), [&](const Member& m) { return m.value == value; });
}

int64_t RowGroup::common_rows(const Nest& nest) const {
    const auto reads = [&](const Operand& operand) { return !operand.is_index() && gives(operand.value); };
    if (std::none_of(nest.operands.begin(), nest.operands.end(), reads)) {
        // nothing is gained but a meeting of threads: for neighbours of the same kind
        return nest.fold.empty() && nest.words() == members_.front().words ? rows_ : 0;
    }
    int64_t best = 0, rows = 1;
    for (int64_t extent : nest.outer) {
        rows *= extent;
        if (rows > rows_ || rows_ % rows != 0) continue;
        const bool all = std::all_of(nest.operands.begin(), nest.operands.end(), [&](const Operand& operand) {
            return !reads(operand) || reads_by_rows(nest, operand, rows);
        });
        if (all) best = rows;
    }
    return best;
}

bool RowGroup::add(const RowPlan& plan, int value) {
    const Nest& nest = plan.nest();
    int64_t rows = nest.words(), touched = nest.words();
    for (const Operand& operand : nest.operands) {
        if (!gives(operand.value) && operand.words() >= nest.words()) touched += operand.words();
    }
    if (!members_.empty()) {
        if (members_.size() == kMostNests) return false;
        rows = common_rows(nest);
        if (rows < std::min(kLeastRows, rows_) || (touched_ + touched) / rows > kLargestRow) return false;
    }
    members_.push_back({&plan, value, nest.words()});
    rows_ = rows;
    touched_ += touched;
    return true;
}

void RowGroup::run(const std::vector<uint32_t*>& values, Workers& workers) const {
    int64_t cost = 0;
    for (const Member& m : members_) cost += m.plan->cost() * m.words;
    const int64_t row_words = divide_up(touched_, rows_);
    int64_t block = std::max<int64_t>(1, kBlockWords / row_words);
    if (block > kUnit) block = block / kUnit * kUnit;
    const int64_t parts = std::clamp<int64_t>(divide_up(rows_, block), 1, std::max<int64_t>(1, cost / kWorthwhile));
    int64_t scratch_words = 0, local_words = 0;
    block = divide_up(rows_, parts);
    for (const Member& m : members_) {
        scratch_words = std::max(scratch_words, m.plan->scratch_words());
        if (!values[m.value]) local_words += round_up(m.words / rows_ * block, kUnit);
    }
    workers.pool.run(divide_up(rows_, block), [&](int64_t part, int thread) {
        const int64_t first = part * block, last = std::min(rows_, first + block);
        uint32_t* const scratch = workers.scratch[thread].words(scratch_words + local_words);
        uint32_t* local = scratch + scratch_words;
        std::vector<uint32_t*> mine(values);
        for (const Member& m : members_) {
            const int64_t words = m.words / rows_;
            if (!mine[m.value]) {
                mine[m.value] = local - first * words;  // so that the block's first row is at its begin
                local += round_up(words * block, kUnit);
            }
            m.plan->run_part(mine.data(), mine[m.value], first * words, last * words, scratch);
        }
    });
}

}  // namespace crowdtrain
