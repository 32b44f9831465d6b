// What the arithmetic units share: the parts of an fp32 number, rounding to nearest even, and what a write does
// (docs/numerics.md, rules 1, 3 and 4). Subnormal numbers are numbers here; only `flush` and `to_bf16` drop them.
package fp;
  localparam logic [31:0] QNAN = 32'h7FC0_0000;

  // Registers behind place `at` of `places`, where `stages` of them are spread over all places.
  function automatic int cut(input int stages, input int places, input int at);
    cut = ((at + 1) * stages) / places - (at * stages) / places;
  endfunction

  function automatic logic is_nan(input logic [31:0] a);
    is_nan = a[30:0] > 31'h7F80_0000;
  endfunction

  function automatic logic is_inf(input logic [31:0] a);
    is_inf = a[30:0] == 31'h7F80_0000;
  endfunction

  function automatic logic is_zero(input logic [31:0] a);
    is_zero = a[30:0] == 31'd0;
  endfunction

  // The exponent, which is 1 for a subnormal number, and the significand with its leading bit.
  function automatic logic [7:0] exponent(input logic [31:0] a);
    exponent = a[30:24] == 7'd0 ? 8'd1 : a[30:23];
  endfunction

  function automatic logic [23:0] significand(input logic [31:0] a);
    significand = {a[30:23] != 8'd0, a[22:0]};
  endfunction

  // Leading zeros; the width for 0.
  function automatic logic [5:0] leading_zeros32(input logic [31:0] v);
    logic [31:0] x;
    begin
      x = v;
      leading_zeros32 = 6'd0;
      if (x[31:16] == 16'd0) begin leading_zeros32[4] = 1'b1; x = {x[15:0], 16'd0}; end
      if (x[31:24] == 8'd0) begin leading_zeros32[3] = 1'b1; x = {x[23:0], 8'd0}; end
      if (x[31:28] == 4'd0) begin leading_zeros32[2] = 1'b1; x = {x[27:0], 4'd0}; end
      if (x[31:30] == 2'd0) begin leading_zeros32[1] = 1'b1; x = {x[29:0], 2'd0}; end
      leading_zeros32[0] = !x[31];
      if (v == 32'd0) leading_zeros32 = 6'd32;
    end
  endfunction

  function automatic logic [5:0] leading_zeros48(input logic [47:0] v);
    leading_zeros48 = v[47:16] != 32'd0 ? leading_zeros32(v[47:16])
                                        : 6'd32 + leading_zeros32({v[15:0], 16'd1 << 15});
  endfunction

  // v shifted to the right by n, with what falls out joined in bit 0.
  function automatic logic [47:0] shift_sticky(input logic [47:0] v, input logic [9:0] n);
    logic [47:0] lost;
    begin
      lost = v & ~(48'hFFFF_FFFF_FFFF << n[5:0]);
      if (n >= 10'd48) shift_sticky = {47'd0, v != 48'd0};
      else shift_sticky = (v >> n[5:0]) | {47'd0, lost != 48'd0};
    end
  endfunction

  // Rounds 1.m, of which m has 23 bits, a guard and a sticky bit, with the exponent field that goes with it (0: the
  // leading bit is 0). The carry of a significand of ones counts the exponent up, to infinity at last.
  function automatic logic [31:0] rounded(input logic sign, input logic [7:0] field, input logic [24:0] m);
    rounded = {sign, {field, m[24:2]} + {30'd0, m[1] & (m[2] | m[0])}};
  endfunction

  // Rounds sign * m * 2^(e - 127 - 47), where e may have any size and m any number of leading zeros.
  function automatic logic [31:0] packed48(input logic sign, input logic signed [9:0] e, input logic [47:0] m);
    logic [5:0] zeros;
    logic signed [9:0] top;
    logic [47:0] n;
    begin
      zeros = leading_zeros48(m);
      top = e - $signed({4'd0, zeros});
      if (top > 10'sd0) n = m << zeros;               // normal
      else if (e > 10'sd0) n = m << (e[5:0] - 6'd1);  // subnormal, nothing falls out
      else n = shift_sticky(m, 10'd1 - e);
      if (m == 48'd0) packed48 = {sign, 31'd0};
      else if (top >= 10'sd255) packed48 = {sign, 8'hFF, 23'd0};
      else packed48 = rounded(sign, top > 10'sd0 ? top[7:0] : 8'd0, {n[46:23], n[22:0] != 23'd0});
    end
  endfunction

  // The same of a significand of 16 bits, sign * m * 2^(e - 127 - 15): nothing is lost unless it is subnormal.
  function automatic logic [31:0] packed16(input logic sign, input logic signed [9:0] e, input logic [15:0] m);
    logic [5:0] zeros;
    logic signed [9:0] top;
    logic [47:0] n;
    begin
      zeros = leading_zeros32({m, 16'h8000});
      top = e - $signed({4'd0, zeros});
      if (top > 10'sd0) n = {m, 32'd0} << zeros;
      else if (e > 10'sd0) n = {m, 32'd0} << (e[5:0] - 6'd1);
      else n = shift_sticky({m, 32'd0}, 10'd1 - e);
      if (m == 16'd0) packed16 = {sign, 31'd0};
      else if (top >= 10'sd255) packed16 = {sign, 8'hFF, 23'd0};
      else packed16 = rounded(sign, top > 10'sd0 ? top[7:0] : 8'd0, {n[46:23], n[22:0] != 23'd0});
    end
  endfunction

  // Rule 4, of a result in fp32.
  function automatic logic [31:0] flush(input logic [31:0] a);
    flush = is_nan(a) ? QNAN : a[30:23] == 8'd0 ? {a[31], 31'd0} : a;
  endfunction

  // Rule 4, of a result in bf16, as the fp32 number that it equals.
  function automatic logic [31:0] to_bf16(input logic [31:0] a);
    logic [31:0] near;
    begin
      near = (a + 32'h7FFF + {31'd0, a[16]}) & 32'hFFFF_0000;
      to_bf16 = is_nan(a) ? QNAN : flush(near);
    end
  endfunction

  function automatic logic less(input logic [31:0] a, input logic [31:0] b);
    logic smaller, larger;
    begin
      smaller = a[30:0] < b[30:0];
      larger = a[30:0] > b[30:0];
      if (is_nan(a) || is_nan(b) || (is_zero(a) && is_zero(b))) less = 1'b0;
      else if (a[31] != b[31]) less = a[31];
      else less = a[31] ? larger : smaller;
    end
  endfunction

  function automatic logic equal(input logic [31:0] a, input logic [31:0] b);
    equal = !is_nan(a) && !is_nan(b) && (a == b || (is_zero(a) && is_zero(b)));
  endfunction

  // Rule 6: of two zeros, the second operand.
  function automatic logic [31:0] maximum(input logic [31:0] a, input logic [31:0] b);
    maximum = is_nan(a) || is_nan(b) ? QNAN : less(b, a) ? a : b;
  endfunction

  function automatic logic [31:0] minimum(input logic [31:0] a, input logic [31:0] b);
    minimum = is_nan(a) || is_nan(b) ? QNAN : less(a, b) ? a : b;
  endfunction
endpackage
