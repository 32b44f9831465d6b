// The bf16 activations of a row (rule 9), by the exact line segments of ltc_compiler/numerics/segments.py.
//
// x in cycle s, result in cycle s + LATENCY - 1, where it is written; a row every cycle:
//   s      read
//   s + 1  round to bf16; its function, sign and exponent name a block
//   s + 2  the leading bits of its mantissa name a segment of the block
//   s + 3  slope * offset + start
//   s + 4  + base, sign of an odd function, NaN
// A longer latency waits behind that.
module activation_bf16 #(
  parameter int LANES = 8,
  parameter int LATENCY = 5,
  parameter     BLOCKS_FILE = "activation_blocks.hex",
  parameter     SEGMENTS_FILE = "activation_segments.hex"
) (
  input  logic                clk,
  input  logic [3:0]          which,  // function, in the order of the instruction table
  input  logic [32*LANES-1:0] x,
  output logic [32*LANES-1:0] result
);
  localparam int STAGES = 5;
  localparam int BLOCK = 35, SEGMENT = ltc_segments::SLOPE + ltc_segments::START;

  logic [BLOCK-1:0] blocks[0:512*ltc_segments::FUNCTIONS-1];
  logic [SEGMENT-1:0] segments[0:ltc_segments::SEGMENTS-1];
  initial begin
    $readmemh(BLOCKS_FILE, blocks);
    $readmemh(SEGMENTS_FILE, segments);
  end

  logic [32*LANES-1:0] x1, narrow, written;
  logic [3:0] which1;
  logic odd, even, odd2, odd3, odd4;
  delay #(.WIDTH(32*LANES+4), .CYCLES(1)) read (.clk(clk), .d({which, x}), .q({which1, x1}));
  always_comb
    for (int l = 0; l < LANES; l++) narrow[32*l +: 32] = fp::to_bf16(x1[32*l +: 32]);
  assign odd = ltc_segments::ODD[which1];
  assign even = ltc_segments::EVEN[which1];
  always_ff @(posedge clk) {odd4, odd3, odd2} <= {odd3, odd2, odd};

  genvar l;
  generate
    for (l = 0; l < LANES; l++) begin : lane
      logic [15:0] narrow1, narrow2, address, base3, base4, sum;
      logic [BLOCK-1:0] block2;
      logic [SEGMENT-1:0] segment3;
      logic [6:0] behind, offset3;
      logic sign2, sign3, sign4, nan3, nan4;
      logic signed [ltc_segments::START-1:0] start3;
      logic signed [ltc_segments::SLOPE-1:0] slope3;
      logic signed [23:0] line, line4;  // 12 bits by 8, and 22 bits

      // s + 1
      assign narrow1 = narrow[32*l+16 +: 16];
      always_ff @(posedge clk) begin
        block2 <= blocks[{which1, narrow1[15] & !(odd | even), narrow1[14:7]}];
        narrow2 <= narrow1;
      end

      // s + 2: the mantissa is cut behind its first `splits` bits
      assign sign2 = narrow2[15] & odd2;
      assign behind = 7'h7F >> block2[2:0];
      assign address = block2[18:3] + {9'd0, narrow2[6:0] >> (3'd7 - block2[2:0])};
      always_ff @(posedge clk) begin
        segment3 <= segments[address];
        offset3 <= narrow2[6:0] & behind;
        base3 <= block2[34:19];
        sign3 <= sign2;
        nan3 <= narrow2[14:0] > 15'h7F80;
      end

      // s + 3
      assign slope3 = segment3[SEGMENT-1:ltc_segments::START];
      assign start3 = segment3[ltc_segments::START-1:0];
      assign line = 24'(slope3) * $signed({17'd0, offset3}) + 24'(start3);
      always_ff @(posedge clk) begin
        line4 <= line;
        base4 <= base3;
        sign4 <= sign3;
        nan4 <= nan3;
      end

      // s + 4
      assign sum = (base4 + line4[ltc_segments::FRACTION +: 16]) ^ {sign4, 15'd0};
      assign written[32*l +: 32] = nan4 || sum[14:0] > 15'h7F80 ? fp::QNAN : {sum, 16'd0};
    end
  endgenerate

  delay #(.WIDTH(32*LANES), .CYCLES(LATENCY - STAGES)) wait_for (.clk(clk), .d(written), .q(result));

  initial
    if (LATENCY < STAGES) $fatal(1, "activation_bf16: its %0d cycles do not fit in a latency of %0d", STAGES, LATENCY);
endmodule
