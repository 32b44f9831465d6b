// Comparisons and selections of fp32 numbers, lane by lane, without a register (rule 6). Neither relation holds
// where an operand is a NaN.
module fp_compare #(
  parameter int LANES = 1
) (
  input  logic [32*LANES-1:0] a,
  input  logic [32*LANES-1:0] b,
  output logic [32*LANES-1:0] maximum,
  output logic [32*LANES-1:0] minimum,
  output logic [LANES-1:0]    less,
  output logic [LANES-1:0]    equal
);
  always_comb
    for (int l = 0; l < LANES; l++) begin
      maximum[32*l +: 32] = fp::maximum(a[32*l +: 32], b[32*l +: 32]);
      minimum[32*l +: 32] = fp::minimum(a[32*l +: 32], b[32*l +: 32]);
      less[l] = fp::less(a[32*l +: 32], b[32*l +: 32]);
      equal[l] = fp::equal(a[32*l +: 32], b[32*l +: 32]);
    end
endmodule
