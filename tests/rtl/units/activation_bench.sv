// The activation unit between two ports: the function above the lanes of a row.
module activation_bench #(
  parameter int LANES = 8,
  parameter int LATENCY = 5
) (
  input  logic                   clk,
  input  logic [32*LANES+31:0]   stimulus,
  output logic [32*LANES-1:0]    response
);
  activation_bf16 #(.LANES(LANES), .LATENCY(LATENCY)) unit (
    .clk(clk), .which(stimulus[32*LANES +: 4]), .x(stimulus[32*LANES-1:0]), .result(response));
endmodule
