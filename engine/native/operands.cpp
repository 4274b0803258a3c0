#include "operands.hpp"

#include <algorithm>
#include <numeric>

namespace crowdtrain {

Operands::Operands(const Nest& nest, const Kernels& kernels) {
    std::vector<int> outer_loops(nest.outer.size()), fold_loops(nest.fold.size());
    std::iota(outer_loops.begin(), outer_loops.end(), 0);
    std::iota(fold_loops.begin(), fold_loops.end(), static_cast<int>(nest.outer.size()));
    for (const Operand& operand : nest.operands) {
        accesses.emplace_back(nest, operand);
        outer.push_back(accesses.back().walk(outer_loops));
        fold.push_back(accesses.back().walk(fold_loops));
        patterns.push_back(Pattern::make(nest, operand, kernels));
    }
}

bool Operands::gathered_by(int o, const Body& body) const {
    for (int by = 0; by < count(); ++by) {
        const std::vector<int>& gathers = accesses[by].gathers();
        if (body.needed[by] && std::find(gathers.begin(), gathers.end(), o) != gathers.end()) return true;
    }
    return false;
}

}  // namespace crowdtrain
