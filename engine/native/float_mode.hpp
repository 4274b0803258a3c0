// The floating-point mode that every computing thread needs: round to nearest even, subnormals kept, no traps.
#pragma once

#include <cfenv>

namespace crowdtrain {

// Sets the mode of the calling thread; gives back what was there (another library may have asked for flush-to-zero).
class FloatMode {
public:
    FloatMode() {
        std::fegetenv(&before_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~FloatMode() { std::fesetenv(&before_); }
    FloatMode(const FloatMode&) = delete;
    FloatMode& operator=(const FloatMode&) = delete;

private:
    std::fenv_t before_;
};

}  // namespace crowdtrain
