// Registers one behind the other; none where CYCLES is 0.
module delay #(
  parameter int WIDTH = 1,
  parameter int CYCLES = 1
) (
  input  logic             clk,
  input  logic [WIDTH-1:0] d,
  output logic [WIDTH-1:0] q
);
  generate
    if (CYCLES == 0) begin : wires
      assign q = d;
    end else if (CYCLES == 1) begin : one
      always_ff @(posedge clk) q <= d;
    end else begin : many
      logic [WIDTH*CYCLES-1:0] line;
      always_ff @(posedge clk) line <= {line[WIDTH*(CYCLES-1)-1:0], d};
      assign q = line[WIDTH*CYCLES-1 -: WIDTH];
    end
  endgenerate
endmodule
