#include "plan.hpp"

#include <algorithm>
#include <chrono>

#include "float_mode.hpp"
#include "map.hpp"

namespace crowdtrain {
namespace {

// Neighbours that can run row by row go together.
void make_groups(const Program& program, const std::vector<std::unique_ptr<NestPlan>>& nests, std::vector<Group>& groups,
                 std::vector<RowGroup>& row_groups) {
    const std::vector<bool> live = live_nests(program);
    for (int i = 0; i < static_cast<int>(nests.size()); ++i) {
        if (!live[i]) continue;
        const auto* plan = dynamic_cast<const RowPlan*>(nests[i].get());
        const int value = program.first_nest() + i;
        if (!plan || row_groups.empty() || row_groups.back().size() == 0 || !row_groups.back().add(*plan, value)) {
            groups.emplace_back();
            row_groups.emplace_back();
            if (plan) row_groups.back().add(*plan, value);
        }
        groups.back().nests.push_back(i);
        groups.back().rows = row_groups.back().rows();
    }
}

// Adds the nanoseconds of its life to a count.
class Stopwatch {
public:
    explicit Stopwatch(int64_t* count) : count_(count) {
        if (count_) start_ = Clock::now();
    }
    ~Stopwatch() {
        if (count_) *count_ += std::chrono::nanoseconds(Clock::now() - start_).count();
    }
    Stopwatch(const Stopwatch&) = delete;
    Stopwatch& operator=(const Stopwatch&) = delete;

private:
    using Clock = std::chrono::steady_clock;
    int64_t* count_;
    Clock::time_point start_;
};

}  // namespace

Plan::Plan(Program program, const Kernels& kernels, int threads)
    : program_(std::move(program)), kernels_(kernels), workers_(threads) {
    for (const Nest& nest : program_.nests) nests_.push_back(plan_nest(nest, kernels_));
    make_groups(program_, nests_, groups_, row_groups_);
    storage_ = plan_storage(program_, groups_, [&](int nest, int value) {
        const Map* map = dynamic_cast<const Map*>(nests_[nest].get());
        return map && map->reads_word_by_word(value);
    });
}

std::vector<const char*> Plan::kinds() const {
    std::vector<const char*> kinds;
    for (const auto& nest : nests_) kinds.push_back(nest->kind());
    return kinds;
}

void Plan::step(const std::vector<uint32_t*>& state, const std::vector<const uint32_t*>& data,
                const std::vector<uint32_t*>& logs, std::vector<int64_t>* spent) {
    const std::lock_guard lock(mutex_);
    const FloatMode mode;
    if (!arena_) arena_ = allocate_words(storage_.arena_words);
    std::vector<uint32_t*> values;
    for (const auto& [place, at] : storage_.values) {
        switch (place) {
            case Storage::Place::state: values.push_back(state[at]); break;
            case Storage::Place::data: values.push_back(const_cast<uint32_t*>(data[at])); break;  // never written
            case Storage::Place::arena: values.push_back(arena_.get() + at); break;
            default: values.push_back(nullptr);
        }
    }
    for (size_t g = 0; g < groups_.size(); ++g) {
        const Stopwatch watch(spent ? &(*spent)[g] : nullptr);
        const int nest = groups_[g].nests.front();
        if (groups_[g].nests.size() > 1) {
            row_groups_[g].run(values, workers_);
        } else {
            nests_[nest]->run(values.data(), values[program_.first_nest() + nest], workers_);
        }
    }
    for (size_t i = 0; i < logs.size(); ++i) {
        const int value = program_.logs[i];
        std::copy_n(values[value], program_.sizes[value], logs[i]);
    }
    move_state(values);
}

// Brings the next state to its place, where it was not computed there.
void Plan::move_state(const std::vector<uint32_t*>& values) {
    std::vector<const uint32_t*> from(program_.state_count);
    int64_t old_words = 0;
    for (int i = 0; i < program_.state_count; ++i) {
        const int value = program_.next[i];
        if (!storage_.kept_in(value, i)) from[i] = values[value];
        if (from[i] && value < program_.state_count) old_words += program_.sizes[i];
    }
    // a state tensor that becomes another may be overwritten before it is copied
    uint32_t* old = old_state_.words(old_words);
    for (int i = 0; i < program_.state_count; ++i) {
        if (!from[i] || program_.next[i] >= program_.state_count) continue;
        std::copy_n(from[i], program_.sizes[i], old);
        from[i] = old;
        old += program_.sizes[i];
    }
    for (int i = 0; i < program_.state_count; ++i) {
        if (from[i]) std::copy_n(from[i], program_.sizes[i], values[i]);
    }
}

void Plan::nest(int number, const std::vector<const uint32_t*>& values, uint32_t* out) {
    const std::lock_guard lock(mutex_);
    const FloatMode mode;
    nests_[number]->run(values.data(), out, workers_);
}

}  // namespace crowdtrain
