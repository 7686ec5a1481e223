// A part of a JPEG file, decoded without the rest: the columns and rows of a crop and no more of the
// inverse transform, the upsampling and the colours than these need.
//
// The caller has read the header: how many pixels there are, and which way is up. Files that are
// anything but plain (damaged, four colours) are left to its other decoder: whatever is decoded here
// has the same bits as what that makes of the whole file.

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csetjmp>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "generator.h"
#include "huffman.h"
#include "libjpeg62.h"

namespace {

using libjpeg::Decompress;
using libjpeg::ErrorManager;

// The functions of the library that `jpeg_open` has found.
struct {
    const void* place;  // where it is loaded
    ErrorManager* (*std_error)(ErrorManager*);
    void (*create)(Decompress*, int version, size_t size);
    void (*destroy)(Decompress*);
    void (*mem_src)(Decompress*, const unsigned char*, unsigned long);
    int (*read_header)(Decompress*, int require_image);
    int (*start)(Decompress*);
    void (*crop)(Decompress*, unsigned* left, unsigned* width);
    unsigned (*skip)(Decompress*, unsigned lines);
    unsigned (*read)(Decompress*, uint8_t** lines, unsigned count);
} library;

template <typename F>
bool find(void* handle, const char* name, F& function) {
    function = reinterpret_cast<F>(dlsym(handle, name));
    return function != nullptr;
}

const void* place_of(const void* function) {
    Dl_info found;
    return dladdr(function, &found) ? found.dli_fbase : nullptr;
}

// Whether this is what we take it for: the first of its functions are the library's.
bool is_librarys(const libjpeg::EntropyDecoder* decoder) {
    static std::atomic<const void*> seen{nullptr};  // there are few, and a look-up takes long
    const void* function = reinterpret_cast<const void*>(decoder->decode_mcu);
    if (seen.load(std::memory_order_relaxed) == function)
        return true;
    if (place_of(function) != library.place ||
        place_of(reinterpret_cast<const void*>(decoder->start_pass)) != library.place)
        return false;
    seen.store(function, std::memory_order_relaxed);
    return true;
}

struct Failure {
    ErrorManager manager;  // first, so that a pointer to it is one to this
    std::jmp_buf back;
};

[[noreturn]] void fail(Decompress* info) {
    std::longjmp(reinterpret_cast<Failure*>(info->err)->back, 1);
}

void on_message(Decompress* info, int level) {
    if (level < 0)  // damage: what it does to the image is for the other decoder to say
        fail(info);
}

struct Header {
    int32_t width, height;  // as stored
    bool progressive, exif;
};

// Read the segments up to the first scan; false for what is not plain. See ITU-T T.81, Annex B.
bool read_segments(const uint8_t* data, size_t size, Header& header) {
    header = {0, 0, false, false};
    size_t at = 2;
    if (size < 4 || data[0] != 0xff || data[1] != 0xd8)
        return false;
    while (at + 4 <= size && data[at] == 0xff) {
        const uint8_t marker = data[at + 1];
        if (marker < 0xc0 || marker == 0xff || (marker >= 0xd0 && marker <= 0xd9))
            return false;
        const size_t length = size_t(data[at + 2]) << 8 | data[at + 3];
        const uint8_t* content = data + at + 4;
        if (length < 2 || at + 2 + length > size)
            return false;
        if (marker == 0xda) {
            // An end mark after the start of the scan, or the file is cut short.
            for (size_t back = size; back >= at + 2 + length + 2; --back)
                if (data[back - 2] == 0xff && data[back - 1] == 0xd9)
                    return header.width > 0;
            return false;
        }
        if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc) {
            if (marker > 0xc2 || length < 8 || header.width)
                return false;  // neither baseline, extended nor progressive with Huffman's code
            header.height = content[1] << 8 | content[2];
            header.width = content[3] << 8 | content[4];
            header.progressive = marker == 0xc2;
            const int components = content[5];
            if (content[0] != 8 || (components != 1 && components != 3) || !header.height ||
                !header.width)
                return false;
        }
        header.exif |= marker == 0xe1;
        at += 2 + length;
    }
    return false;
}

struct Box {
    int left, top, width, height;
};

// Where a pixel of the stored box goes: out + origin + row * per_row + column * per_column bytes.
struct Placement {
    ptrdiff_t origin, per_row, per_column;
};

// The box in the stored image that becomes `box` in the upright one, whose pixels are `bytes` apart
// from row to row. Orientations as in TIFF 6.0, page 36.
Placement place(int orientation, int stored_width, int stored_height, Box& box) {
    const bool swapped = orientation >= 5;
    const Box upright = box;
    const ptrdiff_t row = 3 * ptrdiff_t(upright.width);
    if (swapped)
        box = {upright.top, upright.left, upright.height, upright.width};
    // After the swap, whether columns and rows of the stored box run backwards in the upright image.
    const bool columns = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool rows = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    if (columns)
        box.left = stored_width - box.left - box.width;
    if (rows)
        box.top = stored_height - box.top - box.height;
    Placement to{0, swapped ? 3 : row, swapped ? row : 3};
    if (columns) {
        to.origin += (box.width - 1) * to.per_column;
        to.per_column = -to.per_column;
    }
    if (rows) {
        to.origin += (box.height - 1) * to.per_row;
        to.per_row = -to.per_row;
    }
    return to;
}

void put(const uint8_t* line, int width, uint8_t* out, ptrdiff_t step) {
    if (step == 3) {
        std::memcpy(out, line, 3 * size_t(width));
        return;
    }
    for (int x = 0; x < width; ++x, line += 3, out += step) {
        out[0] = line[0];
        out[1] = line[1];
        out[2] = line[2];
    }
}

// Upsampling looks at the neighbours of a sample. One more block on the left, and two pixels on the
// right, above and below, are what its results need to be those of the whole image.
constexpr int MARGIN = 2;

int at_least(int value, int least) {
    return value > least ? value : least;
}

// As Python's round() has it; a proportion of a recipe can make it larger than any int.
double rounded(double value) {
    return std::nearbyint(value);
}

struct Range {
    double low, high;
};

// What random_box of augment.py draws of an image of this width and height, in the same order.
Box draw_box(numpy::Generator& generator, int width, int height, Range area, Range aspect) {
    for (int attempt = 0; attempt < 10; ++attempt) {
        const double target = generator.uniform(area.low, area.high) * height * width;
        const double ratio =
                std::exp(generator.uniform(std::log(aspect.low), std::log(aspect.high)));
        const double wide = rounded(std::sqrt(target * ratio));
        const double high = rounded(std::sqrt(target / ratio));
        if (0 < wide && wide <= width && 0 < high && high <= height) {
            const int first = int(wide), second = int(high);
            const int left = int(generator.below(uint32_t(width - first + 1)));
            return {left, int(generator.below(uint32_t(height - second + 1))), first, second};
        }
    }
    const double ratio = std::min(std::max(double(width) / height, aspect.low), aspect.high);
    const int first = int(std::min(double(width), rounded(height * ratio)));
    const int second = int(std::min(double(height), rounded(width / ratio)));
    return {(width - first) / 2, (height - second) / 2, first, second};
}

}  // namespace

// The random part of an image, as left, top, width, height and whether it is mirrored, all of it in
// `out`; `key` is that of its generator. Without a width, the image's is read from `data`: false for
// what is not a plain JPEG file that says nothing of which way is up, or has more than `most` pixels.
extern "C" bool random_crop(
        const uint8_t* data, size_t size, int width, int height, int64_t most, const uint32_t* key,
        size_t key_length, double area_low, double area_high, double aspect_low, double aspect_high,
        bool flips, int* out) {
    if (!width) {
        Header header;
        if (!read_segments(data, size, header) || header.progressive || header.exif ||
            int64_t(header.width) * header.height > most)
            return false;
        width = header.width;
        height = header.height;
    }
    numpy::Generator generator(key, key_length);
    const Box box =
            draw_box(generator, width, height, {area_low, area_high}, {aspect_low, aspect_high});
    out[0] = box.left;
    out[1] = box.top;
    out[2] = box.width;
    out[3] = box.height;
    out[4] = flips && generator.share() < 0.5;
    return true;
}

// Use the library of this path. False for one that cannot be loaded, or lacks a function.
extern "C" bool jpeg_open(const char* path) {
    void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle || !find(handle, "jpeg_std_error", library.std_error))
        return false;
    library.place = place_of(reinterpret_cast<const void*>(library.std_error));
    return find(handle, "jpeg_CreateDecompress", library.create) &&
           find(handle, "jpeg_destroy_decompress", library.destroy) &&
           find(handle, "jpeg_mem_src", library.mem_src) &&
           find(handle, "jpeg_read_header", library.read_header) &&
           find(handle, "jpeg_start_decompress", library.start) &&
           find(handle, "jpeg_crop_scanline", library.crop) &&
           find(handle, "jpeg_skip_scanlines", library.skip) &&
           find(handle, "jpeg_read_scanlines", library.read);
}

// A box of the image that `orientation` (EXIF's, 1 to 8) turns upright, (height, width, 3) uint8 in
// the order blue, green, red, into `out`. The image, and with it the box, is that of 1 / `divisor` of
// the size: 1, 2, 4 or 8. False, and `out` undefined, for what is not plain.
extern "C" bool jpeg_part(
        const uint8_t* data, size_t size, int orientation, int divisor, int left, int top, int width,
        int height, uint8_t* out) try {
    Header header;
    if (!read_segments(data, size, header))
        return false;
    const int stored_width = (header.width + divisor - 1) / divisor;
    const int stored_height = (header.height + divisor - 1) / divisor;
    Box box{left, top, width, height};
    const Placement to = place(orientation, stored_width, stored_height, box);
    if (box.left < 0 || box.top < 0 || box.width < 1 || box.height < 1 ||
        box.left + box.width > stored_width || box.top + box.height > stored_height)
        return false;
    std::vector<uint8_t> line(3 * size_t(stored_width));
    uint8_t* pointer = line.data();
    const std::unique_ptr<uint8_t[]> room(new uint8_t[size + huffman::PAD]);
    Decompress info;
    Failure failure;
    std::memset(&info, 0, sizeof info);
    info.err = library.std_error(&failure.manager);
    failure.manager.error_exit = fail;
    failure.manager.emit_message = on_message;
    if (setjmp(failure.back)) {
        library.destroy(&info);
        return false;
    }
    library.create(&info, libjpeg::VERSION, sizeof info);
    library.mem_src(&info, data, size);
    library.read_header(&info, 1);
    info.out_color_space = libjpeg::BGR;
    info.scale_num = 1;
    info.scale_denom = unsigned(divisor);
    library.start(&info);
    if (int(info.output_width) != stored_width || int(info.output_height) != stored_height ||
        info.output_components != 3)
        fail(&info);
    unsigned first = unsigned(at_least(box.left - MARGIN, 0));
    const int end = box.left + box.width + MARGIN;
    unsigned columns = unsigned(end < stored_width ? end : stored_width) - first;
    library.crop(&info, &first, &columns);
    huffman::Scan scan;
    if (is_librarys(info.entropy)) {
        const int across = info.num_components == 1 ? 1 : info.max_h_samp;
        const unsigned mcu = unsigned(info.min_dct_scaled_size * across);
        scan.take_over(info, first / mcu, (first + columns - 1) / mcu, room.get());
    }
    const int above = at_least(box.top - MARGIN, 0);
    if (above && int(library.skip(&info, unsigned(above))) != above)
        fail(&info);
    const uint8_t* wanted = pointer + 3 * (size_t(box.left) - first);
    for (int y = above; y < box.top + box.height; ++y) {
        if (library.read(&info, &pointer, 1) != 1)
            fail(&info);
        if (y >= box.top)
            put(wanted, box.width, out + to.origin + (y - box.top) * to.per_row, to.per_column);
    }
    library.destroy(&info);  // without finishing: nobody needs the rows below
    return true;
} catch (const std::bad_alloc&) {
    return false;
}
