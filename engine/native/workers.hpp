// The threads of a plan, each with memory of its own to work in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "pool.hpp"

namespace crowdtrain {

constexpr int64_t kAlignment = 64;  // bytes: a cache line, and the widest vector

struct FreeWords {
    void operator()(uint32_t* words) const { std::free(words); }
};
using Words = std::unique_ptr<uint32_t[], FreeWords>;

inline Words allocate_words(int64_t count) {
    const auto bytes = static_cast<size_t>((count * 4 + kAlignment) / kAlignment * kAlignment);
    Words words(static_cast<uint32_t*>(std::aligned_alloc(kAlignment, bytes)));
    if (!words) throw std::bad_alloc();
    return words;
}

// A buffer that grows when more is asked for; its contents last until the next call.
class Scratch {
public:
    uint32_t* words(int64_t count) {
        if (count > size_) {
            words_ = nullptr;
            size_ = 0;  // lest there be nothing where words are promised, should memory run out
            words_ = allocate_words(count);
            size_ = count;
        }
        return words_.get();
    }

private:
    Words words_;
    int64_t size_ = 0;
};

struct Workers {
    explicit Workers(int threads) : pool(threads), scratch(threads) {}

    Pool pool;
    std::vector<Scratch> scratch;  // by thread
    Scratch shared;

    // Calls task(begin, end, thread) over [0, count), in pieces that are multiples of `grain` and worth a thread:
    // `cost` is the work for one of `count`, in words touched.
    template <class Task>
    void split(int64_t count, int64_t grain, int64_t cost, const Task& task) {
        constexpr int64_t kWorthwhile = 1 << 15;
        const int64_t grains = (count + grain - 1) / grain;
        const int64_t worth = std::max<int64_t>(1, count * cost / kWorthwhile);
        const int64_t parts = std::min({grains, worth, int64_t{4} * pool.threads()});
        pool.run(parts, [&](int64_t part, int thread) {
            const int64_t begin = grains * part / parts * grain, end = grains * (part + 1) / parts * grain;
            task(begin, std::min(end, count), thread);
        });
    }
};

}  // namespace crowdtrain
