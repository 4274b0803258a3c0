// A whole program made ready to run, step after step.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "kernels.hpp"
#include "nest_plan.hpp"
#include "program.hpp"
#include "row_plan.hpp"
#include "storage.hpp"
#include "workers.hpp"

namespace crowdtrain {

class Plan {
public:
    Plan(Program program, const Kernels& kernels, int threads);

    const Program& program() const { return program_; }
    const Kernels& kernels() const { return kernels_; }
    std::vector<const char*> kinds() const;  // of each nest's plan
    int64_t memory() const { return storage_.arena_words * 4; }  // bytes for what one nest gives another

    const std::vector<Group>& groups() const { return groups_; }

    // Runs one step: `state` goes on to the next state, and the words of log i are written to logs[i]. The nanoseconds
    // that each group takes are added to `spent`, if given.
    void step(const std::vector<uint32_t*>& state, const std::vector<const uint32_t*>& data,
              const std::vector<uint32_t*>& logs, std::vector<int64_t>* spent = nullptr);

    // Writes the output of nest `number` to `out`; `values` are the words of the values before it.
    void nest(int number, const std::vector<const uint32_t*>& values, uint32_t* out);

private:
    void move_state(const std::vector<uint32_t*>& values);

    std::mutex mutex_;  // one step at a time
    const Program program_;
    const Kernels& kernels_;
    Workers workers_;
    std::vector<std::unique_ptr<NestPlan>> nests_;
    std::vector<Group> groups_;
    std::vector<RowGroup> row_groups_;  // one for each group; empty where it is a single nest
    Storage storage_;
    Words arena_;
    Scratch old_state_;
};

}  // namespace crowdtrain
