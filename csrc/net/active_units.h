// Products of rows that a relu's slopes have masked: values whose slope is zero are left out, which
// changes no bit where the weights are finite. All rows of an input share its slopes.
#pragma once

#include "net/product.h"
#include "net/worker.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// The columns of a relu layer that each input of a block keeps.
struct ActiveUnits {
    int32_t* list;    // [inputs, width], ascending; null where rows stay whole
    int32_t* starts;  // [inputs, panels + 1], where a panel's share of the list begins
    int64_t width;    // of the layer
    int64_t panels;   // of its columns
    bool* refused;    // whether there are weights that zero does not make zero

    bool on() const { return list && !*refused; }
};

// Whether K rows an input fill register tiles well enough: decided by widths alone.
template <typename T>
bool skips(const Layer<T>& layer, int64_t K) {
    return layer.activation == Activation::relu && 2 * K >= ROWS && layer.outputs >= PANEL<T>;
}

template <typename T>
ActiveUnits take_active(Arena& arena, const Layer<T>& layer, int64_t inputs, bool* refused) {
    const int64_t width = layer.outputs, panels = panels_of<T>(width);
    int32_t* list = arena.take<int32_t>(inputs * width);
    return {list, arena.take<int32_t>(inputs * (panels + 1)), width, panels, refused};
}

// Input b's columns whose slope is not zero.
template <typename T>
void list_active(const ActiveUnits& active, int64_t b, const T* slope) {
    int32_t *list = active.list + b * active.width,
            *starts = active.starts + b * (active.panels + 1);
    int32_t count = 0;
    for (int64_t p = 0; p < active.panels; ++p) {
        starts[p] = count;
        const int64_t end = (p + 1) * PANEL<T>;
        for (int64_t k = p * PANEL<T>; k < end && k < active.width; ++k) {
            list[count] = int32_t(k);
            count += slope[k] != 0;
        }
    }
    starts[active.panels] = count;
}

// Columns [first, first + count) of a row, whole panels, to their places among the active of input
// b.
template <typename T>
void gather(const ActiveUnits& active, int64_t b, int64_t first, const T* from, T* row,
            int64_t count) {
    const int32_t* list = active.list + b * active.width;
    const int32_t* starts = active.starts + b * (active.panels + 1) + first / PANEL<T>;
    for (int64_t i = starts[0]; i < starts[count / PANEL<T>]; ++i) row[i] = from[list[i] - first];
}

// register_tile for one panel and `count` listed values of k, whose x [M, count] lie together.
template <typename T, int M>
void listed_tile(const T* x, int64_t ldx, const T* panel, const int32_t* list, int64_t count,
                 T* tile, bool add, const T* next, int64_t ahead) {
    Vec<T> sums[M][2] = {};
    for (int64_t i = 0; i < count; ++i) {
        const int64_t k = list[i];
        Vec<T> low = load(panel + k * PANEL<T>), high = load(panel + k * PANEL<T> + width<T>);
        if (M > 1) in_register(low), in_register(high);
        if (M > 4) fetch<2 * VAEFAST_VECTOR_BYTES>(next + k * ahead);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) {
            const Vec<T> xk = broadcast(x[m * ldx + i]);
            sums[m][0] = fma(xk, low, sums[m][0]);
            sums[m][1] = fma(xk, high, sums[m][1]);
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
        for (int v = 0; v < 2; ++v) {
            T* to = tile + m * PANEL<T> + v * width<T>;
            store<T>(to, add ? load(to) + sums[m][v] : sums[m][v]);
        }
}

template <typename T>
using ListedTile = void (*)(const T*, int64_t, const T*, const int32_t*, int64_t, T*, bool,
                            const T*, int64_t);

template <typename T>
ListedTile<T> listed_tile_of(int64_t rows) {
    static constexpr ListedTile<T> tiles[] = {
        listed_tile<T, 1>,
        listed_tile<T, 2>,
        listed_tile<T, 3>,
        listed_tile<T, 4>,
        listed_tile<T, 5>,
        listed_tile<T, 6>,
        VAEFAST_WITH_32_REGISTERS(listed_tile<T, 7>, listed_tile<T, 8>, listed_tile<T, 9>,
                                  listed_tile<T, 10>, listed_tile<T, 11>, listed_tile<T, 12>)};
    return tiles[rows - 1];
}

// product() of gathered rows, of which the first is number `first` of K for each input.
template <typename T, typename Epilogue>
void product_over_active(const ActiveUnits& active, int64_t first, int64_t K, const T* x,
                         int64_t ldx, int64_t rows, const Packed<T>& w, int64_t begin, int64_t end,
                         T* scratch, Epilogue epilogue) {
    constexpr int64_t n = PANEL<T>;
    for (int64_t p = begin; p < end; ++p) {
        const int64_t start = w.triangular ? p * n : 0;
        for (int64_t k = start; k < w.depth; k += DEPTH) {
            const int64_t last = k + DEPTH < w.depth ? k + DEPTH : w.depth;
            const T* next = last < w.depth ? w.panel(p) + last * n : w.panel(p + 1);
            for (int64_t r = 0, count; r < rows; r += count) {
                const int64_t b = (first + r) / K, left = K - (first + r) % K;
                const int64_t own = left < rows - r ? left : rows - r;
                count = own / ((own + ROWS - 1) / ROWS);
                const int32_t* starts = active.starts + b * (active.panels + 1);
                const int64_t i = starts[k / n], ahead = n * count / rows;
                listed_tile_of<T>(count)(x + r * ldx + i, ldx, w.panel(p),
                                         active.list + b * active.width + i,
                                         starts[(last + n - 1) / n] - i, scratch + r * n, k > start,
                                         next + (last - k) * n * r / rows - k * ahead, ahead);
            }
        }
        const int64_t at = p * n, left = w.outputs - at;
        epilogue(Tile<T>{scratch, n, at, left < n ? left : n, n});
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
