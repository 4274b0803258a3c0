// Which instruction sets run on this machine.
#pragma once

#include <string_view>
#include <vector>

#include "kernels.hpp"

namespace crowdtrain {

// Kernels that run here, best first; never empty.
const std::vector<const Kernels*>& available_kernels();

// The kernels of that name, or null if there are none or they do not run here.
const Kernels* find_kernels(std::string_view name);

bool has_sha_extensions();

}  // namespace crowdtrain
