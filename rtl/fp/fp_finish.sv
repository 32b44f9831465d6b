// The cycle *finish* of every unit, lane by lane (rule 4): a result below the normal range becomes zero, a NaN the one
// NaN; where the instruction says bf16, one rounding. STAGES registers behind it.
module fp_finish #(
  parameter int LANES = 1,
  parameter int STAGES = 1
) (
  input  logic                clk,
  input  logic                bf16,
  input  logic [32*LANES-1:0] a,
  output logic [32*LANES-1:0] written
);
  logic [32*LANES-1:0] result;

  always_comb
    for (int l = 0; l < LANES; l++)
      result[32*l +: 32] = bf16 ? fp::to_bf16(a[32*l +: 32]) : fp::flush(a[32*l +: 32]);

  delay #(.WIDTH(32*LANES), .CYCLES(STAGES)) after (.clk(clk), .d(result), .q(written));
endmodule
