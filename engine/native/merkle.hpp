// Merkle trees over tensors (docs/PROTOCOL.md, "Commitments").
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace crowdtrain {

// Leaves of the tree over the 1,024-byte pages of a tensor of at least one byte: 32 bytes each, without the padding.
std::string tensor_leaves(std::span<const uint8_t> tensor, int threads);

// Root of that tree: 32 bytes.
std::string tensor_root(std::span<const uint8_t> tensor, int threads);

}  // namespace crowdtrain
