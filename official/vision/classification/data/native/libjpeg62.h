// What of libjpeg-turbo's binary interface (version 62, on 64-bit Linux) jpeg.cpp uses.
//
// The library comes with Pillow, without its headers. These declarations say the order and the types
// of the fields; libjpeg-turbo itself compares the size of the structure and the version before it
// does anything, and an installation with another interface is refused and not used.
#pragma once

#include <cstddef>
#include <cstdint>

namespace libjpeg {

constexpr int VERSION = 62;
constexpr int GRAYSCALE = 1, RGB = 2, YCBCR = 3, BGR = 8;  // colour spaces; BGR is libjpeg-turbo's

struct Decompress;

struct ErrorManager {
    void (*error_exit)(Decompress*);
    void (*emit_message)(Decompress*, int level);  // below 0: a warning
    void (*output_message)(Decompress*);
    void (*format_message)(Decompress*, char* buffer);
    void (*reset_error_mgr)(Decompress*);
    int msg_code;
    char msg_parm[80];
    int trace_level;
    long num_warnings;
    const char* const* message_table;
    int last_message;
    const char* const* addon_table;
    int first_addon, last_addon;
};

struct Source {
    const uint8_t* next_input_byte;
    size_t bytes_in_buffer;
};

struct HuffmanTable {
    uint8_t bits[17];  // codes of each length; the first is not used
    uint8_t symbols[256];
    int sent;
};

struct Component {
    int component_id, component_index, h_samp, v_samp, quant_tbl_no, dc_tbl_no, ac_tbl_no;
    unsigned width_in_blocks, height_in_blocks;
    int dct_scaled_size;  // edge in pixels of what a block becomes
};

// Not of the public interface, but these two have been its first fields since version 6b.
struct EntropyDecoder {
    void (*start_pass)(Decompress*);
    int (*decode_mcu)(Decompress*, int16_t (**blocks)[64]);
};

struct Decompress {
    // shared with compression
    ErrorManager* err;
    void *mem, *progress, *client_data;
    int is_decompressor, global_state;
    // the file
    Source* src;
    unsigned image_width, image_height;
    int num_components, jpeg_color_space;
    // what is asked for
    int out_color_space;
    unsigned scale_num, scale_denom;
    double output_gamma;
    int buffered_image, raw_data_out, dct_method, do_fancy_upsampling, do_block_smoothing;
    int quantize_colors, dither_mode, two_pass_quantize, desired_number_of_colors;
    int enable_1pass_quant, enable_external_quant, enable_2pass_quant;
    // what comes out
    unsigned output_width, output_height;
    int out_color_components, output_components, rec_outbuf_height, actual_number_of_colors;
    uint8_t** colormap;
    unsigned output_scanline;
    // the state of the decoder, which is its own business
    int input_scan_number;
    unsigned input_iMCU_row;
    int output_scan_number;
    unsigned output_iMCU_row;
    void* coef_bits;
    void* quant_tables[4];
    HuffmanTable *dc_tables[4], *ac_tables[4];
    int data_precision;
    void* comp_info;
    int progressive_mode, arith_code;
    uint8_t arith_dc_l[16], arith_dc_u[16], arith_ac_k[16];
    unsigned restart_interval;
    int saw_jfif;
    uint8_t jfif_major, jfif_minor, density_unit;
    uint16_t x_density, y_density;
    int saw_adobe;
    uint8_t adobe_transform;
    int ccir601_sampling;
    void* marker_list;
    int max_h_samp, max_v_samp, min_dct_scaled_size;
    unsigned total_imcu_rows;
    uint8_t* sample_range_limit;
    int comps_in_scan;
    Component* cur_comp_info[4];
    unsigned mcus_per_row, mcu_rows_in_scan;
    int blocks_in_mcu, mcu_membership[10], ss, se, ah, al;
    int unread_marker;
    void *master, *main, *coef, *post, *inputctl, *marker;
    EntropyDecoder* entropy;
    void *idct, *upsample, *cconvert, *cquantize;
};

}  // namespace libjpeg
