// Products of bf16 numbers in one pass, or of fp32 numbers in nine, lane by lane, over multipliers of 8 x 8 bits: a
// significand of 24 bits is three digits. bf16 numbers are the upper halves of fp32 numbers whose lower halves are 0.
//
// A pass multiplies digit a_digit of a with digit b_digit of b (2 is the leading one, all that a bf16 number has) and
// adds the product to those of the passes before, from `first` on. After the last pass the product is that of a and b,
// as they stand then; it comes two cycles behind. What comes behind another pass is nothing.
module fp_digits #(
  parameter int LANES = 1
) (
  input  logic                clk,
  input  logic                first,
  input  logic [1:0]          a_digit,
  input  logic [1:0]          b_digit,
  input  logic [32*LANES-1:0] a,
  input  logic [32*LANES-1:0] b,
  output logic [32*LANES-1:0] product
);
  // NaN, infinity, sign, exponent (at bit 47 of the whole product), the product of two digits.
  localparam int PASS = 32;

  function automatic logic [15:0] digit(input logic [31:0] a, input logic [1:0] number);
    digit = {8'd0, number == 2'd2 ? {a[30:23] != 8'd0, a[22:16]} : number == 2'd1 ? a[15:8] : a[7:0]};
  endfunction

  function automatic logic [PASS-1:0] pass(
    input logic [31:0] a, input logic [31:0] b, input logic [1:0] a_digit, input logic [1:0] b_digit
  );
    logic nan, infinite;
    logic signed [9:0] e;
    begin
      nan = fp::is_nan(a) || fp::is_nan(b) || (fp::is_inf(a) && fp::is_zero(b)) || (fp::is_zero(a) && fp::is_inf(b));
      infinite = fp::is_inf(a) || fp::is_inf(b);
      e = $signed({2'd0, fp::exponent(a)}) + $signed({2'd0, fp::exponent(b)}) - 10'sd126;
      pass = {3'd0, nan, infinite, a[31] ^ b[31], e, digit(a, a_digit) * digit(b, b_digit)};
    end
  endfunction

  // The digits' product at its place: the sum of their numbers.
  function automatic logic [47:0] added(input logic [47:0] sum, input logic [15:0] term, input logic [2:0] place);
    case (place)
      3'd4: added = sum + {term, 32'd0};
      3'd3: added = sum + {8'd0, term, 24'd0};
      3'd2: added = sum + {16'd0, term, 16'd0};
      3'd1: added = sum + {24'd0, term, 8'd0};
      default: added = sum + {32'd0, term};
    endcase
  endfunction

  function automatic logic [31:0] round(input logic [PASS-1:0] from, input logic [47:0] m);
    if (from[28]) round = fp::QNAN;
    else if (from[27]) round = {from[26], 8'hFF, 23'd0};
    else round = fp::packed48(from[26], from[25:16], m);
  endfunction

  logic [PASS*LANES-1:0] passed, passed1;
  logic [48*LANES-1:0] sofar, total;
  logic [32*LANES-1:0] rounded;
  logic [2:0] place1;
  logic first1;

  always_comb
    for (int l = 0; l < LANES; l++) passed[PASS*l +: PASS] = pass(a[32*l +: 32], b[32*l +: 32], a_digit, b_digit);
  always_comb
    for (int l = 0; l < LANES; l++) begin
      total[48*l +: 48] = added(first1 ? 48'd0 : sofar[48*l +: 48], passed1[PASS*l +: 16], place1);
      rounded[32*l +: 32] = round(passed1[PASS*l +: PASS], total[48*l +: 48]);
    end

  always_ff @(posedge clk) begin
    passed1 <= passed;
    place1 <= {1'b0, a_digit} + {1'b0, b_digit};
    first1 <= first;
    sofar <= total;
    product <= rounded;
  end
endmodule
