// Threads that share the items of a batch. They sleep between batches; the calling thread works with them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "host/interrupt.h"

namespace ltc {

class Workers {
public:
    using Task = void (*)(void* context, std::size_t item, std::size_t thread, Watch& watch) noexcept;

    // `threads` in all, the caller's among them. Throws std::system_error if the system has no more.
    explicit Workers(std::size_t threads);
    ~Workers();
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    std::size_t threads() const { return helpers_.size() + 1; }

    // task(context, item, thread, watch) for every item below `items`, each once, begun in this order on any thread (the
    // calling one is thread 0); returns when all are done. Each thread has a watch of its own on `interrupt`; the calling thread goes on asking the host while it waits.
    void run(std::size_t items, Task task, void* context, Interrupt& interrupt) noexcept;

private:
    void leave() noexcept;
    void help(std::size_t thread) noexcept;
    void take_items(std::size_t thread, Watch& watch) noexcept;

    std::mutex mutex_;
    std::condition_variable begin_, done_;
    std::size_t batch_ = 0, at_work_ = 0;  // under the mutex, as the next three are set
    bool leaving_ = false;
    Task task_ = nullptr;
    void* context_ = nullptr;
    Interrupt* interrupt_ = nullptr;
    std::size_t items_ = 0;
    std::atomic<std::size_t> next_ = 0;
    std::vector<std::thread> helpers_;
};

// The workers of a VM, as many as asked for. A forked process has none of its parent's threads, and gets new ones.
class WorkerPool {
public:
    WorkerPool() = default;
    ~WorkerPool();
    WorkerPool(const WorkerPool&) = delete;
    WorkerPool& operator=(const WorkerPool&) = delete;
    Workers& of(std::size_t threads);

private:
    void forget() noexcept;

    std::unique_ptr<Workers> workers_;
    long process_ = 0;
};

}  // namespace ltc
