// The floating-point mode that every computing thread needs: round to nearest even, subnormals kept, no traps.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace crowdtrain {

// Sets the mode of the calling thread; gives back what was there (another library may have asked for flush-to-zero).
class FloatMode {
public:
    FloatMode() : before_(read()) { write(kDefault); }
    ~FloatMode() { write(before_); }
    FloatMode(const FloatMode&) = delete;
    FloatMode& operator=(const FloatMode&) = delete;

private:
#if defined(__x86_64__)
    using Register = unsigned;
    static constexpr Register kDefault = 0x1f80;  // all exceptions masked
    static Register read() { return _mm_getcsr(); }
    static void write(Register mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
    using Register = uint64_t;
    static constexpr Register kDefault = 0;
    static Register read() {
        Register mode;
        asm volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void write(Register mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
#error "write down how this architecture's floating-point mode is set"
#endif
    Register before_;
};

}  // namespace crowdtrain
