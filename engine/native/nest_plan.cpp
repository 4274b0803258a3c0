#include "nest_plan.hpp"

#include "general.hpp"

namespace crowdtrain {

std::unique_ptr<NestPlan> plan_nest(const Nest& nest, const Kernels& kernels) {
    if (nest.fold.empty()) return std::make_unique<Map>(nest, kernels);
    return std::make_unique<Fold>(nest, kernels);
}

}  // namespace crowdtrain
