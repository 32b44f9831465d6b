// One level of joins: partial sums come one a cycle, in the order of their last beats, and are added in pairs by their
// number. The first of a pair waits in its place for the other; the sum of both goes on ADD cycles after that came. A
// sum that is `alone`, because the other one has no terms, goes on as it is.
module join_level #(
  parameter int LANES = 1,
  parameter int PLACES = 2,  // of all row tiles, an even number of nodes each
  parameter int ADD = 2
) (
  input  logic                      clk,
  input  logic                      reset,
  input  logic                      valid,
  input  logic [$clog2(PLACES)-1:0] place,
  input  logic                      alone,
  input  logic [32*LANES-1:0]       value,
  output logic                      joined_valid,
  output logic [32*LANES-1:0]       joined
);
  logic [PLACES-1:0] waiting;
  logic [32*LANES-1:0] values[0:PLACES-1];
  logic [$clog2(PLACES)-1:0] sibling;
  logic complete;

  assign sibling = place ^ $clog2(PLACES)'(1);
  assign complete = valid && (alone || waiting[sibling]);

  always_ff @(posedge clk)
    if (reset) waiting <= '0;
    else if (complete && !alone) waiting[sibling] <= 1'b0;
    else if (valid && !complete) waiting[place] <= 1'b1;
  always_ff @(posedge clk) if (valid && !complete) values[place] <= value;

  // +0 changes nothing: a sum is never -0.
  fp_add #(.LANES(LANES), .STAGES(ADD)) adder (
    .clk(clk), .subtract(1'b0), .a(value), .b(alone ? '0 : values[sibling]), .sum(joined));
  delay #(.WIDTH(1), .CYCLES(ADD)) after (.clk(clk), .d(complete), .q(joined_valid));
endmodule
