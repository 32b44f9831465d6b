// Quotients of fp32 numbers, lane by lane: one rounding, gradual underflow; any NaN is QNAN. Significands are
// normalised, 26 restoring steps give a bit of the quotient each, the rest is the sticky bit: 28 steps in a row, over
// which STAGES registers are spread.
module fp_div #(
  parameter int LANES = 1,
  parameter int STAGES = 15
) (
  input  logic                clk,
  input  logic [32*LANES-1:0] a,
  input  logic [32*LANES-1:0] b,
  output logic [32*LANES-1:0] quotient
);
  // NaN, infinity, zero, sign, exponent of the quotient's first bit, divisor, remainder, quotient.
  localparam int STATE = 3 + 1 + 10 + 24 + 25 + 26, STEPS = 26;

  function automatic logic [STATE-1:0] begun(input logic [31:0] a, input logic [31:0] b);
    logic nan, infinite, zero;
    logic [5:0] za, zb;
    logic signed [9:0] e;
    begin
      nan = fp::is_nan(a) || fp::is_nan(b) || (fp::is_inf(a) && fp::is_inf(b)) || (fp::is_zero(a) && fp::is_zero(b));
      infinite = fp::is_inf(a) || fp::is_zero(b);
      zero = fp::is_zero(a) || fp::is_inf(b);
      za = fp::leading_zeros32({fp::significand(a), 8'h80});
      zb = fp::leading_zeros32({fp::significand(b), 8'h80});
      e = $signed({2'd0, fp::exponent(a)}) - $signed({4'd0, za}) - $signed({2'd0, fp::exponent(b)})
        + $signed({4'd0, zb}) + 10'sd127;
      begun = {nan, infinite, zero, a[31] ^ b[31], e, fp::significand(b) << zb, 1'b0, fp::significand(a) << za, 26'd0};
    end
  endfunction

  function automatic logic [STATE-1:0] stepped(input logic [STATE-1:0] from);
    logic [24:0] rest, less;
    logic fits;
    begin
      rest = from[50:26];
      less = rest - {1'b0, from[74:51]};
      fits = rest >= {1'b0, from[74:51]};
      stepped = {from[STATE-1:51], fits ? {less[23:0], 1'b0} : {rest[23:0], 1'b0}, from[24:0], fits};
    end
  endfunction

  function automatic logic [31:0] round(input logic [STATE-1:0] from);
    logic sign;
    begin
      sign = from[85];
      if (from[88]) round = fp::QNAN;
      else if (from[87]) round = {sign, 8'hFF, 23'd0};
      else if (from[86]) round = {sign, 31'd0};
      else round = fp::packed48(sign, from[84:75], {from[25:0], from[50:26] != 25'd0, 21'd0});
    end
  endfunction

  logic [STATE*LANES-1:0] first;
  logic [32*LANES-1:0] result;

  always_comb
    for (int l = 0; l < LANES; l++) first[STATE*l +: STATE] = begun(a[32*l +: 32], b[32*l +: 32]);
  genvar n;
  generate
    for (n = 0; n <= STEPS; n++) begin : step  // the first one does nothing but begin
      logic [STATE*LANES-1:0] next, state;
      if (n == 0) begin : begin_with
        assign next = first;
      end else begin : go_on
        always_comb
          for (int l = 0; l < LANES; l++) next[STATE*l +: STATE] = stepped(step[n-1].state[STATE*l +: STATE]);
      end
      delay #(.WIDTH(STATE*LANES), .CYCLES(fp::cut(STAGES, STEPS + 2, n))) after (.clk(clk), .d(next), .q(state));
    end
  endgenerate

  always_comb
    for (int l = 0; l < LANES; l++) result[32*l +: 32] = round(step[STEPS].state[STATE*l +: STATE]);
  delay #(.WIDTH(32*LANES), .CYCLES(fp::cut(STAGES, STEPS + 2, STEPS + 1))) after_round (
    .clk(clk), .d(result), .q(quotient));
endmodule
