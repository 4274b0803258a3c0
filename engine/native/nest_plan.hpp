// A nest made ready to run.
#pragma once

#include <memory>

#include "kernels.hpp"
#include "program.hpp"
#include "workers.hpp"

namespace crowdtrain {

class NestPlan {
public:
    virtual ~NestPlan() = default;
    virtual const char* kind() const = 0;
    // Writes the nest's output; `values[v]` are the words of value v.
    virtual void run(const uint32_t* const* values, uint32_t* out, Workers& workers) const = 0;
};

// The fastest plan for `nest`, which must outlive it.
std::unique_ptr<NestPlan> plan_nest(const Nest& nest, const Kernels& kernels);

}  // namespace crowdtrain
