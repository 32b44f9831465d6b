// All arithmetic units side by side, each LANES wide with STAGES registers; fp_bench.cpp drives it.
module fp_bench #(
  parameter int LANES = 8,
  parameter int STAGES = 2
) (
  input  logic                clk,
  input  logic [32*LANES-1:0] a,
  input  logic [32*LANES-1:0] b,
  output logic [32*LANES-1:0] sum,
  output logic [32*LANES-1:0] difference,
  output logic [32*LANES-1:0] product,
  output logic [32*LANES-1:0] narrow_product,
  output logic [32*LANES-1:0] quotient,
  output logic [32*LANES-1:0] root,
  output logic [32*LANES-1:0] flushed,
  output logic [32*LANES-1:0] narrowed,
  output logic [32*LANES-1:0] floor,
  output logic [32*LANES-1:0] nearest,
  output logic [32*LANES-1:0] maximum,
  output logic [32*LANES-1:0] minimum,
  output logic [32*LANES-1:0] relations
);
  logic [16*LANES-1:0] a_high, b_high;
  logic [32*LANES-1:0] largest, smallest;
  logic [LANES-1:0] less, equal;
  logic [32*LANES-1:0] relation;

  always_comb
    for (int l = 0; l < LANES; l++) begin
      a_high[16*l +: 16] = a[32*l+16 +: 16];
      b_high[16*l +: 16] = b[32*l+16 +: 16];
      relation[32*l +: 32] = {30'd0, equal[l], less[l]};
    end

  fp_add #(.LANES(LANES), .STAGES(STAGES)) u_sum (.clk(clk), .subtract(1'b0), .a(a), .b(b), .sum(sum));
  fp_add #(.LANES(LANES), .STAGES(STAGES)) u_difference (
    .clk(clk), .subtract(1'b1), .a(a), .b(b), .sum(difference));
  fp_mul #(.LANES(LANES), .STAGES(STAGES)) u_product (.clk(clk), .a(a), .b(b), .product(product));
  fp_bmul #(.LANES(LANES), .STAGES(STAGES)) u_narrow_product (
    .clk(clk), .a(a_high), .b(b_high), .product(narrow_product));
  fp_div #(.LANES(LANES), .STAGES(STAGES)) u_quotient (.clk(clk), .a(a), .b(b), .quotient(quotient));
  fp_sqrt #(.LANES(LANES), .STAGES(STAGES)) u_root (.clk(clk), .a(a), .root(root));
  fp_finish #(.LANES(LANES), .STAGES(STAGES)) u_flushed (.clk(clk), .bf16(1'b0), .a(a), .written(flushed));
  fp_finish #(.LANES(LANES), .STAGES(STAGES)) u_narrowed (.clk(clk), .bf16(1'b1), .a(a), .written(narrowed));
  fp_round #(.LANES(LANES), .STAGES(STAGES)) u_floor (.clk(clk), .down(1'b1), .a(a), .whole(floor));
  fp_round #(.LANES(LANES), .STAGES(STAGES)) u_nearest (.clk(clk), .down(1'b0), .a(a), .whole(nearest));
  fp_compare #(.LANES(LANES)) u_compare (
    .a(a), .b(b), .maximum(largest), .minimum(smallest), .less(less), .equal(equal));
  delay #(.WIDTH(96*LANES), .CYCLES(STAGES)) u_compared (
    .clk(clk), .d({largest, smallest, relation}), .q({maximum, minimum, relations}));
endmodule
