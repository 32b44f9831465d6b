// Sums of GROUPS groups of TERMS fp32 numbers each, as a balanced tree of adjacent pairs (rule 7), ADD cycles a level.
module adder_tree #(
  parameter int GROUPS = 1,
  parameter int TERMS = 2,
  parameter int ADD = 2
) (
  input  logic                       clk,
  input  logic [32*GROUPS*TERMS-1:0] terms,
  output logic [32*GROUPS-1:0]       sums
);
  localparam int LEVELS = $clog2(TERMS);

  genvar n;
  generate
    for (n = 0; n <= LEVELS; n++) begin : level
      localparam int COUNT = GROUPS * (TERMS >> n);
      logic [32*COUNT-1:0] values;
      if (n == 0) begin : leaves
        assign values = terms;
      end else begin : add
        logic [32*COUNT-1:0] left, right;
        always_comb
          for (int i = 0; i < COUNT; i++) begin
            left[32*i +: 32] = level[n-1].values[64*i +: 32];
            right[32*i +: 32] = level[n-1].values[64*i+32 +: 32];
          end
        fp_add #(.LANES(COUNT), .STAGES(ADD)) adder (
          .clk(clk), .subtract(1'b0), .a(left), .b(right), .sum(values));
      end
    end
  endgenerate
  assign sums = level[LEVELS].values;
endmodule
