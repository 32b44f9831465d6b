// Square roots of fp32 numbers, lane by lane: one rounding; any NaN is QNAN, also that of a negative number. The
// significand is normalised to an even exponent, 25 restoring steps give a bit of the root each, the rest is the sticky
// bit: 27 steps in a row, over which STAGES registers are spread.
module fp_sqrt #(
  parameter int LANES = 1,
  parameter int STAGES = 15
) (
  input  logic                clk,
  input  logic [32*LANES-1:0] a,
  output logic [32*LANES-1:0] root
);
  // NaN, as it is, sign, exponent, radicand still to be taken, remainder, root.
  localparam int STATE = 3 + 8 + 50 + 27 + 25, STEPS = 25;

  function automatic logic [STATE-1:0] begun(input logic [31:0] a);
    logic nan, same, odd;
    logic [5:0] zeros;
    logic [23:0] m;
    logic [9:0] e;
    begin
      same = fp::is_zero(a) || a == 32'h7F80_0000;
      nan = fp::is_nan(a) || (a[31] && !fp::is_zero(a));
      zeros = fp::leading_zeros32({fp::significand(a), 8'h80});
      m = fp::significand(a) << zeros;
      e = {2'd0, fp::exponent(a)} - {4'd0, zeros} + 10'd127;  // twice the exponent of the root, a bit more if odd
      odd = e[0];
      begun = {nan, same, a[31], same ? a[30:23] : e[8:1], odd ? {m, 26'd0} : {1'b0, m, 25'd0}, 27'd0, 25'd0};
    end
  endfunction

  function automatic logic [STATE-1:0] stepped(input logic [STATE-1:0] from);
    logic [26:0] rest, trial;
    logic fits;
    begin
      rest = {from[49:25], from[101:100]};  // two bits more; the remainder is at most twice the root
      trial = {from[24:0], 2'b01};
      fits = rest >= trial;
      stepped = {from[STATE-1:102], from[99:52], 2'd0, fits ? rest - trial : rest, from[23:0], fits};
    end
  endfunction

  function automatic logic [31:0] round(input logic [STATE-1:0] from);
    if (from[112]) round = fp::QNAN;
    else if (from[111]) round = {from[110:102], 23'd0};
    else round = fp::rounded(1'b0, from[109:102], {from[23:0], from[51:25] != 27'd0});
  endfunction

  logic [STATE*LANES-1:0] first;
  logic [32*LANES-1:0] result;

  always_comb
    for (int l = 0; l < LANES; l++) first[STATE*l +: STATE] = begun(a[32*l +: 32]);
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
    .clk(clk), .d(result), .q(root));
endmodule
