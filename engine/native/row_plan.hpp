// Nests whose outputs can be computed in stretches of any length: maps and folds. And groups of them, run stretch by stretch.
#pragma once

#include <vector>

#include "nest_plan.hpp"
#include "storage.hpp"

namespace crowdtrain {

class RowPlan : public NestPlan {
public:
    explicit RowPlan(const Nest& nest) : nest_(nest) {}

    const Nest& nest() const { return nest_; }
    virtual int64_t cost() const = 0;   // of a word of the output, in words touched
    virtual int64_t grain() const = 0;  // words of the output that are best computed together
    virtual int64_t scratch_words() const = 0;
    // Computes words begin … end - 1 of the output.
    virtual void run_part(const uint32_t* const* values, uint32_t* out, int64_t begin, int64_t end,
                          uint32_t* scratch) const = 0;

    void run(const uint32_t* const* values, uint32_t* out, Workers& workers) const override;

protected:
    const Nest& nest_;
};

// Nests one after another that read of one another only row by row (see reads_by_rows), so that they can run together for
// some rows at a time, and what one gives the next is still in the cache.
class RowGroup {
public:
    // Whether the nest may join, which then gives value number `value`. What a row touches stays small.
    bool add(const RowPlan& plan, int value);
    size_t size() const { return members_.size(); }
    int64_t rows() const { return rows_; }

    // Runs all. Value v is at values[v], or where that is null, it is of the group and used by nothing else.
    // The group's other values are written there too.
    void run(const std::vector<uint32_t*>& values, Workers& workers) const;

private:
    struct Member {
        const RowPlan* plan;
        int value;
        int64_t words;  // of its output
    };

    bool gives(int value) const;
    // The most rows, dividing those of the group, for which the nest reads the group's values by rows; 0 if there are none.
    int64_t common_rows(const Nest& nest) const;

    std::vector<Member> members_;
    int64_t rows_ = 0;
    int64_t touched_ = 0;  // words of all outputs, and of what is read along with them
};

}  // namespace crowdtrain
