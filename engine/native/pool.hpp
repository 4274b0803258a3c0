// Threads that stay: they spin for a moment between two pieces of work, then sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace crowdtrain {

class Pool {
public:
    // `threads` including the one that calls run(); at least 1.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Calls task(part, thread) once for each part below `parts`, on whatever thread is free; waits for all.
    // An exception of a task is thrown here, after the others are done.
    void run(int64_t parts, const std::function<void(int64_t part, int thread)>& task);

private:
    void stop();
    void work(int thread);
    void take_parts(int thread);

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<int> sleeping_{0};
    std::atomic<bool> stop_{false};

    // The work at hand. `task_` and `parts_` stay as they are until every part is done.
    const std::function<void(int64_t, int)>* task_ = nullptr;
    int64_t parts_ = 0;
    int caller_processor_ = -1;
    std::atomic<int64_t> untaken_{0};
    std::atomic<int64_t> undone_{0};
    std::exception_ptr error_;
};

}  // namespace crowdtrain
