#if defined(__x86_64__)

#include "kernels_impl.hpp"
#include "vector_avx2.hpp"

namespace crowdtrain {

constinit const Kernels kAvx2Kernels = make_kernels<avx2::V>();

}  // namespace crowdtrain

#endif
