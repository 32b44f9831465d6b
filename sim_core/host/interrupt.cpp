// See interrupt.h.
#include "host/interrupt.h"

#include <algorithm>

namespace ltc {

bool Watch::look() noexcept {
    constexpr std::chrono::microseconds short_time{500}, long_time{2000};
    constexpr std::uint32_t longest = 1u << 20;
    if (interrupt_.ask_ == nullptr) {  // nobody will ever stop it: no clock is read
        left_ = 0;                     // 2^32 polls
        return false;
    }
    const auto now = Clock::now();
    if (looked_ == Clock::time_point{}) {
        asked_ = now;  // a run of a few steps asks nobody
    } else if (now - looked_ < short_time) {
        stride_ = std::min(2 * stride_, longest);
    } else if (now - looked_ > long_time) {
        stride_ = std::max(stride_ / 4, 1u);
    }
    looked_ = now;
    left_ = stride_;
    if (asks_ && now - asked_ >= interval) {
        const Interrupt::Answer answer = interrupt_.ask_(interrupt_.host_);
        if (answer == Interrupt::Answer::stop) interrupt_.raised_.store(true, std::memory_order_relaxed);
        asks_ = answer == Interrupt::Answer::go_on;  // once is enough: the host's error stands
        looked_ = asked_ = Clock::now();  // to ask may take as long as other threads of the host do
    }
    return raised();
}

}  // namespace ltc
