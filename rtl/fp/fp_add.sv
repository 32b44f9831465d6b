// Sums of fp32 numbers, lane by lane: one rounding, gradual underflow; any NaN is QNAN. `subtract` takes b's other sign.
// Align, add, normalise and round: STAGES registers are spread over these three.
module fp_add #(
  parameter int LANES = 1,
  parameter int STAGES = 2
) (
  input  logic                clk,
  input  logic                subtract,
  input  logic [32*LANES-1:0] a,
  input  logic [32*LANES-1:0] b,
  output logic [32*LANES-1:0] sum
);
  localparam int ALIGNED = 64, ADDED = 40;

  // NaN, infinity, sign, whether to subtract, exponent, the larger significand, the smaller one shifted, with guard,
  // round and sticky bit. A number below has no effect on an infinity.
  function automatic logic [ALIGNED-1:0] align(input logic [31:0] a, input logic [31:0] b);
    logic swap, nan, infinite;
    logic [31:0] x, y;
    logic [47:0] moved;
    begin
      swap = a[30:0] < b[30:0];
      x = swap ? b : a;
      y = swap ? a : b;
      infinite = x[30:23] == 8'hFF;
      nan = fp::is_nan(x) || fp::is_nan(y) || (fp::is_inf(y) && x[31] != y[31]);
      moved = fp::shift_sticky({21'd0, fp::significand(y), 3'd0}, {2'd0, fp::exponent(x) - fp::exponent(y)});
      align = {1'b0, nan, infinite, x[31], x[31] ^ y[31], fp::exponent(x), fp::significand(x), moved[26:0]};
    end
  endfunction

  // NaN, infinity, sign, exponent, sum; of equal numbers with other signs, +0.
  function automatic logic [ADDED-1:0] add(input logic [ALIGNED-1:0] from);
    logic [27:0] x, y, total;
    begin
      x = {1'b0, from[50:27], 3'd0};
      y = {1'b0, from[26:0]};
      total = from[59] ? x - y : x + y;
      add = {1'b0, from[62:61], from[60] & !(from[59] && total == 28'd0), from[58:51], total};
    end
  endfunction

  // The leading one goes to its place, or as far as the exponent of a subnormal number lets it.
  function automatic logic [31:0] round(input logic [ADDED-1:0] from);
    logic sign;
    logic [7:0] e, field;
    logic [5:0] zeros;
    logic [27:0] total, n;
    begin
      sign = from[36];
      e = from[35:28];
      total = from[27:0];
      zeros = fp::leading_zeros32({total, 4'h8});
      if ({1'b0, e} >= {3'd0, zeros}) begin  // of the exponent e + 1 at bit 27
        n = total << zeros[4:0];
        field = e + 8'd1 - {2'd0, zeros};
      end else begin
        n = total << e[4:0];
        field = 8'd0;
      end
      if (from[38]) round = fp::QNAN;
      else if (from[37] || (e == 8'd254 && total[27])) round = {sign, 8'hFF, 23'd0};
      else if (total == 28'd0) round = {sign, 31'd0};
      else round = fp::rounded(sign, field, {n[26:3], n[2:0] != 3'd0});
    end
  endfunction

  logic [ALIGNED*LANES-1:0] aligned, to_add;
  logic [ADDED*LANES-1:0] added, to_round;
  logic [32*LANES-1:0] result;

  always_comb
    for (int l = 0; l < LANES; l++)
      aligned[ALIGNED*l +: ALIGNED] = align(a[32*l +: 32], b[32*l +: 32] ^ {subtract, 31'd0});
  always_comb
    for (int l = 0; l < LANES; l++) added[ADDED*l +: ADDED] = add(to_add[ALIGNED*l +: ALIGNED]);
  always_comb
    for (int l = 0; l < LANES; l++) result[32*l +: 32] = round(to_round[ADDED*l +: ADDED]);

  delay #(.WIDTH(ALIGNED*LANES), .CYCLES(fp::cut(STAGES, 3, 0))) after_align (.clk(clk), .d(aligned), .q(to_add));
  delay #(.WIDTH(ADDED*LANES), .CYCLES(fp::cut(STAGES, 3, 1))) after_add (.clk(clk), .d(added), .q(to_round));
  delay #(.WIDTH(32*LANES), .CYCLES(fp::cut(STAGES, 3, 2))) after_round (.clk(clk), .d(result), .q(sum));
endmodule
