// The outputs of a convolution that make a caller's image: all taps of each input pixel, then sums.
#pragma once

#include "net/window_product.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t SUMMED_PANELS = 8;  // of outputs that are summed before the epilogue

// Features [first, last) of one row: each the sum of its sources among the taps' products.
template <typename T>
void sum_sources(const Window<T>& w, const T* products, int64_t first, int64_t last, T* to) {
    const int64_t pixels = w.out.pixels(), taps = w.taps();
    const Side& columns = w.columns;
    for (int64_t f = first; f < last;) {
        const int64_t channel = f / pixels, begin = f % pixels;
        const int64_t end = pixels - begin < last - f ? pixels : begin + last - f;
        for (int64_t p = begin; p < end; ++p) {
            T sum = 0;
            for (int32_t s = w.begin[p]; s < w.begin[p + 1]; ++s) {
                const Source& source = w.sources[s];
                sum += products[columns.place(channel * taps + source.tap, 0) + source.at];
            }
            *to++ = sum;
        }
        f += end - begin;
    }
}

// Elements of scratch that a window's product with at most `rows` rows takes.
template <typename T>
int64_t window_scratch(const Window<T>& w, int64_t rows) {
    const int64_t band = band_size(w, rows), sums = rows * SUMMED_PANELS * PANEL<T>;
    return w.spreads() && sums > band ? sums : band;
}

// As window_product, where the outputs lie as callers count them. `products` holds `rows` rows of
// padded<T>(w.columns.size()) elements that the team shares.
template <typename T, typename Epilogue>
void spread_product(const Window<T>& w, const T* x, int64_t ldx, int64_t rows, const Worker& worker,
                    T* products, T* scratch, Epilogue epilogue) {
    const int64_t stride = padded<T>(w.columns.size());
    window_product(w, x, ldx, rows, worker.rank, worker.ranks, scratch, [&](const Tile<T>& tile) {
        for (int64_t r = 0; r < rows; ++r)
            copy(products + r * stride + tile.first, tile[r], tile.padded);
    });
    worker.sync();
    const int64_t features = w.out.features(), panels = panels_of<T>(features);
    const Range own = share(panels, worker.rank, worker.ranks);
    for (int64_t p = own.begin, count; p < own.end; p += count) {
        count = own.end - p < SUMMED_PANELS ? own.end - p : SUMMED_PANELS;
        const int64_t first = p * PANEL<T>, size = count * PANEL<T>;
        const int64_t last = features - first < size ? features : first + size;
        for (int64_t r = 0; r < rows; ++r)
            sum_sources(w, products + r * stride, first, last, scratch + r * size);
        epilogue(Tile<T>{scratch, size, first, last - first, size});
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
