#include "plan.hpp"

#include <algorithm>

#include "float_mode.hpp"

namespace crowdtrain {

Plan::Plan(Program program, const Kernels& kernels, int threads)
    : program_(std::move(program)), kernels_(kernels), workers_(std::max(1, threads)) {
    for (const Nest& nest : program_.nests) nests_.push_back(plan_nest(nest, kernels_));
}

std::vector<const char*> Plan::kinds() const {
    std::vector<const char*> kinds;
    for (const auto& nest : nests_) kinds.push_back(nest->kind());
    return kinds;
}

void Plan::step(const std::vector<uint32_t*>& state, const std::vector<const uint32_t*>& data,
                const std::vector<uint32_t*>& logs) {
    const std::lock_guard lock(mutex_);
    const FloatMode mode;
    if (outputs_.empty()) {
        for (const Nest& nest : program_.nests) outputs_.push_back(allocate_words(nest.words()));
        for (int i = 0; i < program_.state_count; ++i) next_.push_back(allocate_words(program_.sizes[i]));
    }
    std::vector<const uint32_t*> values(state.begin(), state.end());
    values.insert(values.end(), data.begin(), data.end());
    for (size_t i = 0; i < nests_.size(); ++i) {
        nests_[i]->run(values.data(), outputs_[i].get(), workers_);
        values.push_back(outputs_[i].get());
    }
    for (size_t i = 0; i < logs.size(); ++i) {
        const int value = program_.logs[i];
        std::copy_n(values[value], program_.sizes[value], logs[i]);
    }
    for (int i = 0; i < program_.state_count; ++i) {
        std::copy_n(values[program_.next[i]], program_.sizes[i], next_[i].get());
    }
    for (int i = 0; i < program_.state_count; ++i) std::copy_n(next_[i].get(), program_.sizes[i], state[i]);
}

void Plan::nest(int number, const std::vector<const uint32_t*>& values, uint32_t* out) {
    const std::lock_guard lock(mutex_);
    const FloatMode mode;
    nests_[number]->run(values.data(), out, workers_);
}

}  // namespace crowdtrain
