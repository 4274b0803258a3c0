// Merkle trees over tensors (docs/PROTOCOL.md, "Commitments").
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sha256.hpp"

namespace crowdtrain {

// Leaves of the tree over the 1,024-byte pages of a tensor of at least one byte: 32 bytes each, without the padding.
std::string tensor_leaves(std::span<const uint8_t> tensor, int threads);

// Roots of the trees of several tensors.
std::vector<Digest> tensor_roots(const std::vector<std::span<const uint8_t>>& tensors, int threads);

}  // namespace crowdtrain
