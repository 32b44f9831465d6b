// An LSTM of HIDDEN units and a dense output in RTNeural, with sizes known when it is compiled.
// rtneural WEIGHTS SAMPLES OUTPUT BLOCK PASSES. The weights stand as PyTorch has them: W (4H), U (4H, H), b (4H), the
// dense layer's weights (H) and its bias.
#include <RTNeural/RTNeural.h>

#include "loop.h"

int main(int, char** argv) {
    constexpr int H = HIDDEN;
    const std::vector<float> weights = read_floats(argv[1]);
    const float* next = weights.data();
    std::vector<std::vector<float>> w(1, std::vector<float>(4 * H)), u(H, std::vector<float>(4 * H));
    std::vector<float> b(4 * H);
    for (int i = 0; i < 4 * H; ++i) w[0][i] = *next++;
    for (int i = 0; i < 4 * H; ++i)
        for (int k = 0; k < H; ++k) u[k][i] = *next++;
    for (float& value : b) value = *next++;
    const std::vector<std::vector<float>> dense{{next, next + H}};
    RTNeural::ModelT<float, 1, 1, RTNeural::LSTMLayerT<float, 1, H>, RTNeural::DenseT<float, H, 1>> model;
    model.get<0>().setWVals(w);
    model.get<0>().setUVals(u);
    model.get<0>().setBVals(b);
    model.get<1>().setWeights(dense);
    model.get<1>().setBias(next + H);
    model.reset();
    run(read_floats(argv[2]), argv[3], std::atoi(argv[4]), std::atoi(argv[5]),
        [&](const float* in, float* out, int count) {
            for (int i = 0; i < count; ++i) out[i] = model.forward(in + i);
        });
}
