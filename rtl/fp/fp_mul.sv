// Products of fp32 numbers, lane by lane: one rounding, gradual underflow; any NaN is QNAN.
// Multiply, normalise and round: STAGES registers are spread over these two.
module fp_mul #(
  parameter int LANES = 1,
  parameter int STAGES = 2
) (
  input  logic                clk,
  input  logic [32*LANES-1:0] a,
  input  logic [32*LANES-1:0] b,
  output logic [32*LANES-1:0] product
);
  localparam int PRODUCT = 64;

  // NaN, infinity, sign, exponent (at bit 47 of the significand), significand.
  function automatic logic [PRODUCT-1:0] multiply(input logic [31:0] a, input logic [31:0] b);
    logic nan, infinite;
    logic signed [9:0] e;
    begin
      nan = fp::is_nan(a) || fp::is_nan(b) || (fp::is_inf(a) && fp::is_zero(b)) || (fp::is_zero(a) && fp::is_inf(b));
      infinite = fp::is_inf(a) || fp::is_inf(b);
      e = $signed({2'd0, fp::exponent(a)}) + $signed({2'd0, fp::exponent(b)}) - 10'sd126;
      multiply = {3'd0, nan, infinite, a[31] ^ b[31], e, {24'd0, fp::significand(a)} * {24'd0, fp::significand(b)}};
    end
  endfunction

  function automatic logic [31:0] round(input logic [PRODUCT-1:0] from);
    if (from[60]) round = fp::QNAN;
    else if (from[59]) round = {from[58], 8'hFF, 23'd0};
    else round = fp::packed48(from[58], from[57:48], from[47:0]);
  endfunction

  logic [PRODUCT*LANES-1:0] multiplied, to_round;
  logic [32*LANES-1:0] result;

  always_comb
    for (int l = 0; l < LANES; l++)
      multiplied[PRODUCT*l +: PRODUCT] = multiply(a[32*l +: 32], b[32*l +: 32]);
  always_comb
    for (int l = 0; l < LANES; l++) result[32*l +: 32] = round(to_round[PRODUCT*l +: PRODUCT]);

  delay #(.WIDTH(PRODUCT*LANES), .CYCLES(fp::cut(STAGES, 2, 0))) after_multiply (
    .clk(clk), .d(multiplied), .q(to_round));
  delay #(.WIDTH(32*LANES), .CYCLES(fp::cut(STAGES, 2, 1))) after_round (.clk(clk), .d(result), .q(product));
endmodule
