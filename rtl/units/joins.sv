// The levels above the tree of a beat: they join the partial sums of a row tile's phases (docs/machine.md, matrix unit).
// A partial sum comes with its tile, its phase and the number of phases that the sum has; PHASES is a power of two. The
// whole sum leaves ADD * log2(PHASES) cycles after the last of its partial sums came.
module joins #(
  parameter int LANES = 1,
  parameter int TILES = 1,
  parameter int PHASES = 16,
  parameter int ADD = 2
) (
  input  logic                clk,
  input  logic                reset,
  input  logic                valid,
  input  logic [5:0]          tile,
  input  logic [6:0]          phase,
  input  logic [7:0]          phases,
  input  logic [32*LANES-1:0] value,
  output logic                whole_valid,
  output logic [32*LANES-1:0] whole
);
  localparam int LEVELS = $clog2(PHASES);

  genvar n;
  generate
    for (n = 0; n <= LEVELS; n++) begin : level
      logic arrived;
      logic [5:0] its_tile;
      logic [6:0] its_phase;
      logic [7:0] its_phases;
      logic [32*LANES-1:0] sum;
      if (n == 0) begin : first
        assign arrived = valid;
        assign sum = value;
        assign {its_tile, its_phase, its_phases} = {tile, phase, phases};
      end else begin : join_two
        localparam int NODES = PHASES >> (n - 1), PLACES = TILES * NODES;
        logic [12:0] place, node;
        logic [7:0] other;
        always_comb begin
          node = {6'd0, level[n-1].its_phase >> (n - 1)};
          place = {7'd0, level[n-1].its_tile} * 13'(NODES) + node;
          other = {1'b0, node[6:0] ^ 7'd1} << (n - 1);  // the first phase of its sibling
        end
        join_level #(.LANES(LANES), .PLACES(PLACES), .ADD(ADD)) of_level (
          .clk(clk), .reset(reset), .valid(level[n-1].arrived), .place(place[$clog2(PLACES)-1:0]),
          .alone(other >= level[n-1].its_phases), .value(level[n-1].sum), .joined_valid(arrived), .joined(sum));
        delay #(.WIDTH(21), .CYCLES(ADD)) along (
          .clk(clk), .d({level[n-1].its_tile, level[n-1].its_phase, level[n-1].its_phases}),
          .q({its_tile, its_phase, its_phases}));
      end
    end
  endgenerate
  assign whole_valid = level[LEVELS].arrived;
  assign whole = level[LEVELS].sum;
endmodule
