#include "kernels_impl.hpp"
#include "vector_portable.hpp"

namespace crowdtrain {

constinit const Kernels kPortableKernels = make_kernels<portable::V>();

}  // namespace crowdtrain
