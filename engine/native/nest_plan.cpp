#include "nest_plan.hpp"

#include "contraction.hpp"
#include "fold.hpp"
#include "map.hpp"
#include "scatter.hpp"
#include "union_map.hpp"

namespace crowdtrain {

std::unique_ptr<NestPlan> plan_nest(const Nest& nest, const Kernels& kernels) {
    if (auto joined = Union::make(nest, kernels)) return joined;
    if (nest.fold.empty()) return std::make_unique<Map>(nest, kernels);
    if (auto contraction = Contraction::make(nest, kernels)) return contraction;
    if (auto scatter = Scatter::make(nest, kernels)) return scatter;
    return std::make_unique<Fold>(nest, kernels);
}

}  // namespace crowdtrain
