// A .nam file in NAM Core. nam FILE SAMPLES OUTPUT BLOCK PASSES. Built with samples in float, as plug-ins do.
#include <NAM/dsp.h>
#include <NAM/get_dsp.h>

#include "loop.h"

int main(int, char** argv) {
    const int block = std::atoi(argv[4]);
    const std::unique_ptr<nam::DSP> model = nam::get_dsp(std::filesystem::path(argv[1]));
    model->Reset(48000.0, block);
    run(read_floats(argv[2]), argv[3], block, std::atoi(argv[5]), [&](float* in, float* out, int count) {
        model->process(&in, &out, count);
    });
}
