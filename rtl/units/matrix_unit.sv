// The matrix unit: B x B products of a weight block and a row in a beat, two of them to each of B/2 accumulators of every
// lane; the tree over these, the joins of the phases, the bias (rule 7; docs/machine.md). No stall. `reset` is held for LATENCY cycles
// where beats are on their way.
//
// A beat gives its operands in cycle s, and a row tile's last beat has its result in cycle s + LATENCY - 1, where it is
// written. With fp32 operands (`wide`) the beat holds the unit for FP32_BEATS cycles, the lower halves of the weights
// come in cycle s + 1, and all that follows is FP32_BEATS - 1 cycles later:
//   s, s + 1           read; round to bf16, broadcast
//   s + 2              multiply 2, by digits of 8 bits
//   s + 4              two passes of the accumulators, ACCUMULATE cycles each: the even term, then the odd one
//   s + 4 + 2 A        six levels of two cycles: log2(B/2) of the tree, the others join 128/B phases
//   s + 16 + 2 A       the bias 2, then *finish*
module matrix_unit #(
  parameter int B = 8,
  parameter int TILES = 4,  // row tiles in flight: `accumulators` of the configuration
  parameter int ACCUMULATE = 4,
  parameter int FP32_BEATS = 9,
  parameter int LATENCY = 27
) (
  input  logic              clk,
  input  logic              reset,
  input  logic              valid,
  input  logic              wide,      // fp32 operands
  input  logic [5:0]        tile,      // which of the row tiles in flight
  input  logic [6:0]        phase,     // the input row's number in the sum, modulo 128/B
  input  logic [7:0]        phases,    // that the sum has: 128/B, or its rows if these are fewer
  input  logic              first,     // its accumulators start from +0
  input  logic              final_use, // no other beat of the sum adds to its accumulators
  input  logic              last,      // the last beat of a row tile
  input  logic              bf16,      // how the result is written
  input  logic              addend,    // the product is flushed before the bias is added
  input  logic              relu,
  input  logic [B-1:0]      lanes,     // of x that are there
  input  logic [32*B-1:0]   x,
  input  logic [32*B-1:0]   bias,
  input  logic [16*B*B-1:0] weights,   // word j of lane l at l * B + j
  output logic              result_valid,
  output logic [32*B-1:0]   result
);
  localparam int HALF = B / 2, PHASES = B >= 128 ? 1 : 128 / B, PAIRS = B * HALF, DIGITS = 9;
  localparam int TREE = 2 * $clog2(HALF), JOINS = 12 - TREE;
  localparam int STAGES = 2 + 2 + 2 * ACCUMULATE + 12 + 2 + 1;
  localparam int CONTROL = 6 + 7 + 8 + 1 + 1 + 1 + 3;

  // s + 1, and from s + 2 on the operands of the beat at work, with the passes that it has left.
  logic valid1, wide1, wide2;
  logic [CONTROL-1:0] control1, control2;
  logic [B-1:0] lanes1, lanes2;
  logic [32*B-1:0] x1, bias1, narrow, x2, bias2;
  logic [16*B*B-1:0] weights1, high2, low2;
  logic [9:0] left2;
  logic [9:0] pass2;
  logic active2, last_pass2;
  always_comb
    for (int j = 0; j < B; j++) narrow[32*j +: 32] = wide1 ? x1[32*j +: 32] : fp::to_bf16(x1[32*j +: 32]);
  always_ff @(posedge clk) begin
    valid1 <= valid && !reset;
    control1 <= {tile, phase, phases, first, final_use, last, bf16, addend, relu};
    {wide1, lanes1, x1, bias1, weights1} <= {wide, lanes, x, bias, weights};
    if (valid1) {control2, wide2, lanes2, x2, bias2, high2} <= {control1, wide1, lanes1, narrow, bias1, weights1};
    if (active2 && pass2 == 10'd0) low2 <= weights1;
    if (reset) left2 <= 10'd0;
    else if (valid1) left2 <= wide1 ? 10'(FP32_BEATS) : 10'd1;
    else if (active2) left2 <= left2 - 10'd1;
    pass2 <= valid1 ? 10'd0 : pass2 + 10'd1;
  end
  assign active2 = left2 != 10'd0;
  assign last_pass2 = left2 == 10'd1;

  // Nine passes, the last ones of FP32_BEATS: digits of x for one of the weights after the other, the leading one first.
  logic [3:0] digit_pass;
  logic [1:0] x_digit, w_digit;
  always_comb begin
    digit_pass = 4'(10'd9 - left2);
    x_digit = !wide2 ? 2'd2 : 2'(digit_pass % 4'd3);
    w_digit = !wide2 ? 2'd2 : 2'd2 - 2'(digit_pass / 4'd3);
  end

  logic [32*B*B-1:0] w_each, x_each, product4;
  logic [B-1:0] lanes4;
  always_comb
    for (int i = 0; i < B * B; i++) begin
      w_each[32*i +: 32] = {high2[16*i +: 16], wide2 ? low2[16*i +: 16] : 16'd0};
      x_each[32*i +: 32] = x2[32*(i%B) +: 32];
    end
  fp_digits #(.LANES(B * B)) multipliers (
    .clk(clk), .first(!wide2 || left2 == 10'd9), .a_digit(x_digit), .b_digit(w_digit),
    .a(x_each), .b(w_each), .product(product4));
  delay #(.WIDTH(B), .CYCLES(2)) lanes_along (.clk(clk), .d(lanes2), .q(lanes4));

  // What belongs to a beat, beside its numbers.
  logic valid4, valid_w, valid_a, valid_t, valid_j;
  logic [CONTROL-1:0] control4, control_w, control_a, control_t, control_j;
  delay #(.WIDTH(CONTROL + 1), .CYCLES(2)) along_multiply (
    .clk(clk), .d({last_pass2, control2}), .q({valid4, control4}));
  delay #(.WIDTH(CONTROL + 1), .CYCLES(2 * ACCUMULATE - 1)) along_accumulate (
    .clk(clk), .d({valid4, control4}), .q({valid_w, control_w}));
  delay #(.WIDTH(CONTROL + 1), .CYCLES(TREE)) along_tree (
    .clk(clk), .d({valid_a, control_a}), .q({valid_t, control_t}));
  delay #(.WIDTH(CONTROL + 1), .CYCLES(JOINS)) along_joins (
    .clk(clk), .d({valid_t, control_t}), .q({valid_j, control_j}));

  // The accumulators: a beat reads those of its tile and phase, and writes them 2 * ACCUMULATE cycles later.
  logic [32*PAIRS-1:0] accumulators[0:TILES*PHASES-1];
  logic [32*PAIRS-1:0] even4, odd4, odd, start4, once, twice, to_tree;
  logic [12:0] from, to;
  always_comb begin
    from = {7'd0, control4[26:21]} * 13'(PHASES) + {6'd0, control4[20:14]};
    to = {7'd0, control_w[26:21]} * 13'(PHASES) + {6'd0, control_w[20:14]};
    for (int i = 0; i < PAIRS; i++) begin  // a lane that is not there adds +0, whatever its weight
      even4[32*i +: 32] = lanes4[2*(i%HALF)] ? product4[64*i +: 32] : 32'd0;
      odd4[32*i +: 32] = lanes4[2*(i%HALF)+1] ? product4[64*i+32 +: 32] : 32'd0;
    end
  end
  assign start4 = control4[5] ? '0 : accumulators[from[$clog2(TILES*PHASES)-1:0]];
  fp_add #(.LANES(PAIRS), .STAGES(ACCUMULATE)) first_pass (
    .clk(clk), .subtract(1'b0), .a(start4), .b(even4), .sum(once));
  delay #(.WIDTH(32*PAIRS), .CYCLES(ACCUMULATE)) odd_along (.clk(clk), .d(odd4), .q(odd));
  fp_add #(.LANES(PAIRS), .STAGES(ACCUMULATE - 1)) second_pass (
    .clk(clk), .subtract(1'b0), .a(once), .b(odd), .sum(twice));
  always_ff @(posedge clk) begin  // the last register of the second pass, there and on the way to the tree
    if (valid_w) accumulators[to[$clog2(TILES*PHASES)-1:0]] <= twice;
    to_tree <= twice;
    {valid_a, control_a} <= {valid_w, control_w};
  end

  // The tree, the joins, the bias.
  logic [32*B-1:0] partial, whole, flushed, bias_j, with_bias, ended;
  logic whole_valid, valid_b;
  logic [2:0] how_b;
  adder_tree #(.GROUPS(B), .TERMS(HALF)) tree (.clk(clk), .terms(to_tree), .sums(partial));
  joins #(.LANES(B), .TILES(TILES), .PHASES(PHASES)) join_phases (
    .clk(clk), .reset(reset), .valid(valid_t && control_t[4]), .tile(control_t[26:21]), .phase(control_t[20:14]),
    .phases(control_t[13:6]), .value(partial), .whole_valid(whole_valid), .whole(whole));
  delay #(.WIDTH(32*B), .CYCLES(2 + 2 * ACCUMULATE + 12)) bias_along (.clk(clk), .d(bias2), .q(bias_j));
  always_comb
    for (int l = 0; l < B; l++)
      flushed[32*l +: 32] = control_j[1] ? fp::flush(whole[32*l +: 32]) : whole[32*l +: 32];
  fp_add #(.LANES(B), .STAGES(2)) add_bias (.clk(clk), .subtract(1'b0), .a(flushed), .b(bias_j), .sum(with_bias));
  delay #(.WIDTH(4), .CYCLES(2)) along_bias (
    .clk(clk), .d({whole_valid && valid_j && control_j[3], control_j[2:0]}), .q({valid_b, how_b}));

  function automatic logic [31:0] finished(input logic [31:0] sum, input logic narrow, input logic at_least_zero);
    logic [31:0] r;
    begin
      r = at_least_zero ? fp::maximum(fp::flush(sum), 32'd0) : sum;
      finished = narrow ? fp::to_bf16(r) : fp::flush(r);
    end
  endfunction

  always_comb
    for (int l = 0; l < B; l++) ended[32*l +: 32] = finished(with_bias[32*l +: 32], how_b[2], how_b[0]);
  delay #(.WIDTH(32*B + 1), .CYCLES(LATENCY - STAGES)) wait_for (
    .clk(clk), .d({valid_b, ended}), .q({result_valid, result}));

  initial begin
    if (LATENCY < STAGES) $fatal(1, "matrix_unit: its %0d cycles do not fit in a latency of %0d", STAGES, LATENCY);
    if (FP32_BEATS < DIGITS) $fatal(1, "matrix_unit: a beat of fp32 operands takes %0d passes", DIGITS);
  end
endmodule
