// How a host ends a run before it is done. A thread that executes polls its Watch between steps, which costs a few
// instructions; every few milliseconds the Watch of the calling thread asks the host. All threads of a run see the answer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace ltc {

class Interrupt {
public:
    enum class Answer : std::uint8_t { go_on, stop, never };  // never: do not ask again in this run
    using Ask = Answer (*)(void* host) noexcept;

    Interrupt(Ask ask, void* host) : ask_(ask), host_(host) {}
    Interrupt(const Interrupt&) = delete;
    Interrupt& operator=(const Interrupt&) = delete;

    bool raised() const { return raised_.load(std::memory_order_relaxed); }

private:
    friend class Watch;
    Ask ask_;  // null: nobody asks
    void* host_;
    std::atomic<bool> raised_ = false;
};

// One thread's view of an Interrupt. asks: it is the calling thread, which alone may ask the host.
class Watch {
public:
    Watch(Interrupt& interrupt, bool asks) : interrupt_(interrupt), asks_(asks) {}

    // Whether to stop.
    bool poll() noexcept {
        if (--left_ != 0) return false;
        return look();
    }
    bool raised() const { return interrupt_.raised(); }

    // The slow half: reads the clock, asks the host if it is time, and sets `left_` so that half a millisecond or so passes
    // before the next call.
    bool look() noexcept;

    static constexpr std::chrono::milliseconds interval{20};  // between two questions

private:
    using Clock = std::chrono::steady_clock;
    Interrupt& interrupt_;
    bool asks_;
    std::uint32_t left_ = 1, stride_ = 1;
    Clock::time_point looked_{}, asked_{};
};

}  // namespace ltc
