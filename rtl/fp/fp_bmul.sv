// Products of bf16 numbers as fp32 numbers, lane by lane. 16 bits of significand fit in 24, so a product is exact unless
// it overflows or falls below the normal range. Multiply, normalise and round: STAGES registers.
module fp_bmul #(
  parameter int LANES = 1,
  parameter int STAGES = 2
) (
  input  logic                clk,
  input  logic [16*LANES-1:0] a,
  input  logic [16*LANES-1:0] b,
  output logic [32*LANES-1:0] product
);
  localparam int PRODUCT = 32;

  // NaN, infinity, sign, exponent (at bit 15 of the significand), significand.
  function automatic logic [PRODUCT-1:0] multiply(input logic [15:0] a, input logic [15:0] b);
    logic nan, a_large, b_large;
    logic [7:0] ea, eb;
    logic [15:0] significand;
    logic signed [9:0] e;
    begin
      a_large = a[14:7] == 8'hFF;
      b_large = b[14:7] == 8'hFF;
      nan = (a_large && (a[6:0] != 7'd0 || b[14:0] == 15'd0)) || (b_large && (b[6:0] != 7'd0 || a[14:0] == 15'd0));
      ea = a[14:8] == 7'd0 ? 8'd1 : a[14:7];
      eb = b[14:8] == 7'd0 ? 8'd1 : b[14:7];
      e = $signed({2'd0, ea}) + $signed({2'd0, eb}) - 10'sd126;
      significand = {8'd0, a[14:7] != 8'd0, a[6:0]} * {8'd0, b[14:7] != 8'd0, b[6:0]};
      multiply = {3'd0, nan, a_large || b_large, a[15] ^ b[15], e, significand};
    end
  endfunction

  function automatic logic [31:0] round(input logic [PRODUCT-1:0] from);
    if (from[28]) round = fp::QNAN;
    else if (from[27]) round = {from[26], 8'hFF, 23'd0};
    else round = fp::packed16(from[26], from[25:16], from[15:0]);
  endfunction

  logic [PRODUCT*LANES-1:0] multiplied, to_round;
  logic [32*LANES-1:0] result;

  always_comb
    for (int l = 0; l < LANES; l++)
      multiplied[PRODUCT*l +: PRODUCT] = multiply(a[16*l +: 16], b[16*l +: 16]);
  always_comb
    for (int l = 0; l < LANES; l++) result[32*l +: 32] = round(to_round[PRODUCT*l +: PRODUCT]);

  delay #(.WIDTH(PRODUCT*LANES), .CYCLES(fp::cut(STAGES, 2, 0))) after_multiply (
    .clk(clk), .d(multiplied), .q(to_round));
  delay #(.WIDTH(32*LANES), .CYCLES(fp::cut(STAGES, 2, 1))) after_round (.clk(clk), .d(result), .q(product));
endmodule
