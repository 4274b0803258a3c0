#if defined(__x86_64__)

#include "kernels_impl.hpp"
#include "vector_avx512.hpp"

namespace crowdtrain {

constinit const Kernels kAvx512Kernels = make_kernels<avx512::V>();

}  // namespace crowdtrain

#endif
