// Huffman's code of a baseline scan (ITU-T T.81, F.2.2 and Annex C), in place of libjpeg's reader of it.
//
// Most of a photograph's decoding is this code, and a crop needs a part of its blocks. In the others
// coefficients are passed over two at a time, and in these each takes one look-up. All else, from
// coefficients to pixels, stays libjpeg's. What is in any way odd is an error here, so that another
// decoder says what is left of the image: whatever this one accepts, libjpeg reads alike.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "libjpeg62.h"

namespace huffman {

constexpr int NEAR = 10;  // bits that are looked up for one coefficient
constexpr int FAR = 11;   // and to pass over several
constexpr int LAST = 63;  // place of a block's last coefficient, in zigzag order

// Where the coefficients of the zigzag order are in a block; T.81, figure A.6.
constexpr uint8_t ORDER[64] = {
        0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
        41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
        30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

// The bits of a segment, the next one uppermost in `hold`; its bytes are followed by PAD zeros.
struct Bits {
    const uint8_t* at;
    uint64_t hold = 0;
    int count = 0;

    // At least 56 bits: a code has up to 16, and the number after it 15. Without a branch, as it would
    // depend on chance; what `hold` has below `count` bits is what comes there again.
    void fill() {
        uint64_t next;
        std::memcpy(&next, at, 8);
        hold |= __builtin_bswap64(next) >> count;
        at += (63 - count) >> 3;
        count |= 56;
    }
    void drop(int bits) {
        hold <<= bits;
        count -= bits;
    }
    uint32_t look(int bits) const {
        return uint32_t(hold >> (64 - bits));
    }
    // Whole bytes of which no bit was taken do not count.
    const uint8_t* used() const {
        return at - count / 8;
    }
};

constexpr size_t PAD = 512;  // more bytes than a block takes: 64 coefficients of 31 bits

// A code, and what it says, in tables by the bits that come next.
class Table {
public:
    // Of a code for differences of means, or for the other coefficients. False for what is no code.
    bool prepare(const libjpeg::HuffmanTable& code, bool of_means) {
        if (known && !std::memcmp(&code, &source, offsetof(libjpeg::HuffmanTable, sent)))
            return true;  // many files have the same ones
        known = false;
        source = code;
        means = of_means;
        std::memset(nears, 0, sizeof nears);
        unsigned next = 0;
        int place = 0;
        for (int bits = 1; bits <= 16; ++bits, next <<= 1) {
            offset[bits] = place - int(next);
            for (int i = 0; i < code.bits[bits]; ++i, ++next, ++place) {
                if (place > 255 || next >> bits)
                    return false;
                if (bits <= NEAR)
                    std::fill_n(nears + (next << (NEAR - bits)), 1 << (NEAR - bits),
                                meaning(code.symbols[place], bits));
            }
            limit[bits] = next << (16 - bits);
        }
        if (!means)
            for (uint32_t view = 0; view < 1u << FAR; ++view)
                fars[view] = jump(view);
        return known = true;
    }

    // The next coefficient, and how far it is from the last one; END after a block's last, NONE for
    // what is no code. After fill() there are bits for two of them.
    int next(Bits& bits, int& value) const {
        Code code = nears[bits.look(NEAR)];  // with its number 25 bits at most
        if (!code.bits) {
            bits.fill();
            code = longer(bits.look(16));  // 31, and 25 are left
        }
        value = number(bits.hold << (code.bits - code.size), code.size);
        bits.drop(code.bits);
        return code.advance;
    }

    // The coefficients but for the mean, into a block of zeros.
    bool coefficients(Bits& bits, int16_t* block) const {
        for (int last = 0;;) {
            bits.fill();
            for (int two = 0; two < 2; ++two) {
                int value;
                const int advance = next(bits, value);
                last += advance;
                if (last > LAST)
                    return advance == END;
                block[ORDER[last]] = int16_t(value);
                if (last == LAST)
                    return true;
            }
        }
    }

    // The same, where they are not wanted.
    bool pass(Bits& bits) const {
        for (int last = 0;;) {
            bits.fill();
            for (int two = 0; two < 2; ++two) {
                const Jump jump = fars[bits.look(FAR)];  // 26 bits at most
                if (jump.bits && last + jump.advance + jump.ends <= LAST) {
                    bits.drop(jump.bits);
                    last += jump.advance;
                    if (jump.ends || last == LAST)
                        return true;
                    continue;
                }
                int value;
                bits.fill();
                const int advance = next(bits, value);
                last += advance;
                if (last >= LAST)
                    return last == LAST || advance == END;
                break;  // as there may not be bits for another jump
            }
        }
    }

    static constexpr int END = 64, NONE = 65;

private:
    struct Code {
        uint8_t bits;     // of it and its number; none: it is longer than NEAR, or there is no code
        uint8_t size;     // bits of its number
        uint8_t advance;  // see next()
        uint8_t unused;   // four bytes are faster to find than three
    };
    struct Jump {
        uint8_t bits;  // none: not one code is in view
        uint8_t advance : 7, ends : 1;
    };

    // The number that the uppermost `size` bits stand for; T.81, tables F.1 and F.2.
    static int number(uint64_t bits, int size) {
        const int value = int(bits >> 1 >> (63 - size));
        return value < 1 << size >> 1 ? value - (1 << size) + 1 : value;
    }

    Code meaning(int symbol, int bits) const {
        const int size = symbol & 15, run = symbol >> 4;
        const int advance = means ? 1 : size || run == 15 ? run + 1 : END;
        return {uint8_t(bits + size), uint8_t(size), uint8_t(advance), 0};
    }

    __attribute__((noinline)) Code longer(uint32_t view) const {
        for (int bits = NEAR + 1; bits <= 16; ++bits)
            if (view < limit[bits])
                return meaning(source.symbols[offset[bits] + int(view >> (16 - bits))], bits);
        return {0, 0, NONE, 0};
    }

    // The first two codes in view, or one. Of their numbers the last may go on behind it.
    Jump jump(uint32_t view) const {
        const Code one = nears[view >> (FAR - NEAR)];
        if (one.advance == END || !one.bits)
            return {one.bits, 0, one.bits > 0};
        const Code two = nears[(view << one.bits & ((1u << FAR) - 1)) >> (FAR - NEAR)];
        if (!two.bits || one.bits + two.bits - two.size > FAR)
            return {one.bits, one.advance, false};
        const bool ends = two.advance == END;
        return {uint8_t(one.bits + two.bits), uint8_t(one.advance + (ends ? 0 : two.advance)), ends};
    }

    bool known = false, means;
    libjpeg::HuffmanTable source;
    uint32_t limit[17];     // of the next 16 bits, where codes of this length end
    int offset[17];         // from a code of this length to the place of its symbol
    Code nears[1 << NEAR];  // by the next bits
    Jump fars[1 << FAR];    // the same; not of means
};

// A scan that is being read for libjpeg.
class Scan {
public:
    // Read the scan for `info`, which has not begun with it; pixels are wanted of the MCUs from column
    // `first` to `last` only. False, and nothing is changed, for what is not for this reader. `room`
    // is for the bytes of a scan of this length.
    bool take_over(libjpeg::Decompress& info, unsigned first, unsigned last, uint8_t* room) {
        if (info.progressive_mode || info.arith_code || info.comps_in_scan != info.num_components ||
            info.comps_in_scan > 4 || info.blocks_in_mcu < 1 || info.blocks_in_mcu > 10)
            return false;
        thread_local Table means[4], others[4];
        for (int i = 0; i < info.blocks_in_mcu; ++i) {
            const int component = info.mcu_membership[i];
            const libjpeg::Component& of = *info.cur_comp_info[component];
            const unsigned a = unsigned(of.dc_tbl_no), b = unsigned(of.ac_tbl_no);
            if (a > 3 || b > 3 || !info.dc_tables[a] || !info.ac_tables[b] ||
                !means[a].prepare(*info.dc_tables[a], true) ||
                !others[b].prepare(*info.ac_tables[b], false))
                return false;
            blocks[i] = {component, of.dct_scaled_size == 1, &means[a], &others[b]};
        }
        count = info.blocks_in_mcu;
        columns = info.mcus_per_row;
        interval = to_restart = info.restart_interval;
        first_wanted = first;
        last_wanted = last;
        at = info.src->next_input_byte;
        end = at + info.src->bytes_in_buffer;
        segment = room;
        open_segment();
        info.client_data = this;
        info.entropy->decode_mcu = read;
        return true;
    }

private:
    struct Block {
        int component;
        bool mean_only;  // a block becomes one pixel
        const Table *means, *others;
    };

    // libjpeg's function for the next MCU: into blocks of zeros, or nowhere without them.
    static int read(libjpeg::Decompress* info, int16_t (**out)[64]) {
        if (!static_cast<Scan*>(info->client_data)->next(out))
            info->err->error_exit(info);
        return 1;
    }

    bool next(int16_t (**out)[64]) {
        if (interval && to_restart-- == 0 && !restart())
            return false;
        const bool wanted = out && column >= first_wanted && column <= last_wanted;
        column = column + 1 == columns ? 0 : column + 1;
        Bits local = bits;  // in registers
        for (int i = 0; i < count; ++i) {
            const Block& block = blocks[i];
            int difference;
            local.fill();
            if (block.means->next(local, difference) == Table::NONE)
                return false;
            const int value = mean[block.component] += difference;
            if (value != int16_t(value))
                return false;
            if (wanted)
                (*out[i])[0] = int16_t(value);
            if (!(wanted && !block.mean_only ? block.others->coefficients(local, *out[i])
                                             : block.others->pass(local)) ||
                local.used() > segment_end)
                return false;
        }
        bits = local;
        return true;
    }

    // The next segment's bytes up to a marker, without the zero after a byte of ones.
    void open_segment() {
        uint8_t* out = segment;
        while (at < end) {
            const void* ones = std::memchr(at, 0xff, size_t(end - at));
            const uint8_t* stop = ones ? static_cast<const uint8_t*>(ones) : end;
            std::memcpy(out, at, size_t(stop - at));
            out += stop - at;
            at = stop;
            if (end - at < 2 || at[1] != 0)
                break;
            *out++ = 0xff;
            at += 2;
        }
        segment_end = out;
        std::memset(out, 0, PAD);
        bits = {segment};
    }

    // Go on behind the marker that is next, with nothing but padding before it.
    bool restart() {
        const int marker = 0xd0 + (restarts++ & 7);
        if (segment_end != bits.used() || end - at < 2 || at[0] != 0xff || at[1] != marker)
            return false;
        at += 2;
        to_restart = interval - 1;
        std::memset(mean, 0, sizeof mean);
        open_segment();
        return true;
    }

    const uint8_t *at, *end;  // what is left of the file
    uint8_t *segment, *segment_end;
    Bits bits{nullptr};
    Block blocks[10];
    int count, mean[4] = {};
    unsigned column = 0, columns, first_wanted, last_wanted;
    unsigned interval, to_restart, restarts = 0;
};

}  // namespace huffman
