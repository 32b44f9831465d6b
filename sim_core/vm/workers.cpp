// See workers.h. Items are taken by a counter, so that a slow core takes fewer.
#include "vm/workers.h"

#include <unistd.h>

namespace ltc {

Workers::Workers(std::size_t threads) {
    helpers_.reserve(threads);
    try {
        while (helpers_.size() + 1 < threads) helpers_.emplace_back([this, thread = helpers_.size() + 1] { help(thread); });
    } catch (...) {
        leave();
        throw;
    }
}

Workers::~Workers() { leave(); }

void Workers::leave() noexcept {
    {
        const std::lock_guard lock(mutex_);
        leaving_ = true;
    }
    begin_.notify_all();
    for (std::thread& helper : helpers_) helper.join();
    helpers_.clear();
}

void Workers::run(std::size_t items, Task task, void* context, Interrupt& interrupt) noexcept {
    Watch watch(interrupt, true);
    {
        const std::lock_guard lock(mutex_);
        task_ = task, context_ = context, items_ = items, interrupt_ = &interrupt;
        next_.store(0, std::memory_order_relaxed);
        at_work_ = helpers_.size();
        ++batch_;
    }
    begin_.notify_all();
    take_items(0, watch);
    std::unique_lock lock(mutex_);
    while (!done_.wait_for(lock, Watch::interval, [this] { return at_work_ == 0; })) {
        lock.unlock();  // the host may take its time to answer
        watch.look();
        lock.lock();
    }
}

void Workers::help(std::size_t thread) noexcept {
    std::size_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
        begin_.wait(lock, [&] { return leaving_ || batch_ != seen; });
        if (leaving_) return;
        seen = batch_;
        lock.unlock();
        {
            Watch watch(*interrupt_, false);
            take_items(thread, watch);
        }
        lock.lock();
        if (--at_work_ == 0) done_.notify_one();
    }
}

void Workers::take_items(std::size_t thread, Watch& watch) noexcept {
    for (std::size_t item; (item = next_.fetch_add(1, std::memory_order_relaxed)) < items_;) task_(context_, item, thread, watch);
}

WorkerPool::~WorkerPool() { forget(); }

Workers& WorkerPool::of(std::size_t threads) {
    const long process = getpid();
    if (workers_ == nullptr || process_ != process || workers_->threads() != threads) {
        forget();
        workers_ = std::make_unique<Workers>(threads);
        process_ = process;
    }
    return *workers_;
}

void WorkerPool::forget() noexcept {
    if (process_ == getpid())
        workers_.reset();
    else
        (void)workers_.release();  // its threads stayed behind in the parent: there is nothing to join
}

}  // namespace ltc
