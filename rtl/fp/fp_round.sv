// Whole numbers beside fp32 numbers (rule 15), lane by lane: the nearest, of two the even one, or with `down` the largest
// that is not above. Exact; a zero keeps its sign, and a number that is cut to zero keeps that of the number. Cut,
// count up: STAGES registers.
module fp_round #(
  parameter int LANES = 1,
  parameter int STAGES = 2
) (
  input  logic                clk,
  input  logic                down,
  input  logic [32*LANES-1:0] a,
  output logic [32*LANES-1:0] whole
);
  // Whether to count up, the bit that counts one (0: the number is cut to zero), the number cut.
  function automatic logic [63:0] cut_off(input logic [31:0] a, input logic down);
    logic [31:0] kept, unit, half;
    logic [7:0] n;
    logic up, below_one, whole_already;
    begin
      below_one = a[30:23] < 8'd127;
      whole_already = a[30:23] >= 8'd150;
      n = 8'd150 - a[30:23];  // bits behind the point
      unit = 32'd1 << n[4:0];
      half = {1'b0, unit[31:1]};
      kept = a & ~(unit - 32'd1);
      if (whole_already) up = 1'b0;
      else if (down) up = a[31] && (below_one ? !fp::is_zero(a) : kept != a);
      else if (below_one) up = a[30:0] > 31'h3F00_0000;
      else up = (a & half) != 32'd0 && ((a & (half - 32'd1)) != 32'd0 || (a & unit) != 32'd0);
      cut_off = {up && below_one, up && !below_one, whole_already ? 30'd0 : unit[29:0],
                 whole_already ? (fp::is_nan(a) ? fp::QNAN : a) : below_one ? {a[31], 31'd0} : kept};
    end
  endfunction

  function automatic logic [31:0] count_up(input logic [63:0] from);
    if (from[63]) count_up = {from[31], 31'h3F80_0000};
    else count_up = from[31:0] + (from[62] ? {2'd0, from[61:32]} : 32'd0);
  endfunction

  logic [64*LANES-1:0] kept, to_count;
  logic [32*LANES-1:0] result;

  always_comb
    for (int l = 0; l < LANES; l++) kept[64*l +: 64] = cut_off(a[32*l +: 32], down);
  always_comb
    for (int l = 0; l < LANES; l++) result[32*l +: 32] = count_up(to_count[64*l +: 64]);

  delay #(.WIDTH(64*LANES), .CYCLES(fp::cut(STAGES, 2, 0))) after_cut (.clk(clk), .d(kept), .q(to_count));
  delay #(.WIDTH(32*LANES), .CYCLES(fp::cut(STAGES, 2, 1))) after_count (.clk(clk), .d(result), .q(whole));
endmodule
