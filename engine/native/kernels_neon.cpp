#if defined(__aarch64__)

#include "kernels_impl.hpp"
#include "vector_neon.hpp"

namespace crowdtrain {

constinit const Kernels kNeonKernels = make_kernels<neon::V>();

}  // namespace crowdtrain

#endif
