// The matrix unit between two ports: a word for each control signal, then lanes, x, bias and weights.
module matrix_bench #(
  parameter int B = 8,
  parameter int TILES = 4,
  parameter int ACCUMULATE = 4,
  parameter int LATENCY = 27
) (
  input  logic                                      clk,
  input  logic [32*(12+(B+31)/32+2*B)+16*B*B-1:0] stimulus,
  output logic [32*(B+1)-1:0]                       response
);
  localparam int LANES = 32 * 12, X = LANES + 32 * ((B + 31) / 32), BIAS = X + 32 * B, W = BIAS + 32 * B;
  logic result_valid;
  logic [32*B-1:0] result;

  matrix_unit #(.B(B), .TILES(TILES), .ACCUMULATE(ACCUMULATE), .LATENCY(LATENCY)) unit (
    .clk(clk), .reset(stimulus[0]), .valid(stimulus[32]), .wide(stimulus[64]), .tile(stimulus[96 +: 6]),
    .phase(stimulus[128 +: 7]), .phases(stimulus[160 +: 8]), .first(stimulus[192]), .final_use(stimulus[224]),
    .last(stimulus[256]), .bf16(stimulus[288]), .addend(stimulus[320]), .relu(stimulus[352]),
    .lanes(stimulus[LANES +: B]), .x(stimulus[X +: 32*B]), .bias(stimulus[BIAS +: 32*B]),
    .weights(stimulus[W +: 16*B*B]), .result_valid(result_valid), .result(result));
  assign response = {result, 31'd0, result_valid};
endmodule
