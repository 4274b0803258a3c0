#include "operands.hpp"

#include <numeric>

namespace crowdtrain {

Operands::Operands(const Nest& nest) {
    std::vector<int> outer_loops(nest.outer.size()), fold_loops(nest.fold.size());
    std::iota(outer_loops.begin(), outer_loops.end(), 0);
    std::iota(fold_loops.begin(), fold_loops.end(), static_cast<int>(nest.outer.size()));
    for (const Operand& operand : nest.operands) {
        accesses.emplace_back(nest, operand);
        outer.push_back(accesses.back().walk(outer_loops));
        fold.push_back(accesses.back().walk(fold_loops));
        patterns.push_back(Pattern::make(nest, operand));
    }
}

}  // namespace crowdtrain
