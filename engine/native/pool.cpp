#include "pool.hpp"

#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif

#include "float_mode.hpp"

namespace crowdtrain {
namespace {

constexpr int kSpins = 4000;  // some tens of microseconds: longer than the gap between two nests of a step

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

int current_processor() {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

// Goes on on any other processor that the thread may use. A system that wakes a worker where its caller runs may leave
// it there for long, though others idle: the two then take turns.
void leave_processor([[maybe_unused]] int processor) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (processor < 0 || processor >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    cpu_set_t others = allowed;
    CPU_CLR(processor, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0) {
        sched_setaffinity(0, sizeof allowed, &allowed);
    }
#endif
}

}  // namespace

Pool::Pool(int threads) {
    try {
        for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (...) {
        stop();
        throw;
    }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
    {
        std::lock_guard lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::run(int64_t parts, const std::function<void(int64_t, int)>& task) {
    if (workers_.empty() || parts <= 1) {
        for (int64_t part = 0; part < parts; ++part) task(part, 0);
        return;
    }
    task_ = &task;
    parts_ = parts;
    caller_processor_ = current_processor();
    undone_ = parts;
    untaken_ = parts;
    if (sleeping_ > 0) {
        std::lock_guard lock(mutex_);
        wake_.notify_all();
    }
    take_parts(0);
    for (int spins = 0; undone_ > 0; ++spins) {
        if (spins < kSpins) {
            pause();
        } else {
            std::this_thread::yield();
        }
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Pool::take_parts(int thread) {
    for (;;) {
        int64_t left = untaken_;
        while (left > 0 && !untaken_.compare_exchange_weak(left, left - 1)) {
        }
        if (left == 0) return;
        try {
            (*task_)(parts_ - left, thread);
        } catch (...) {
            std::lock_guard lock(mutex_);
            if (!error_) error_ = std::current_exception();
        }
        --undone_;
    }
}

void Pool::work(int thread) {
    const FloatMode mode;
    const auto called = [this] { return untaken_ > 0 || stop_; };
    for (;;) {
        for (int spins = 0; spins < kSpins && !called(); ++spins) pause();
        if (!called()) {
            std::unique_lock lock(mutex_);
            ++sleeping_;
            wake_.wait(lock, called);
            --sleeping_;
        }
        if (stop_) return;
        if (untaken_ > 0 && current_processor() == caller_processor_) leave_processor(caller_processor_);
        take_parts(thread);
    }
}

}  // namespace crowdtrain
