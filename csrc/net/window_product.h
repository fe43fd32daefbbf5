// The product of rows with a window: panel by panel, band of output pixels by band.
#pragma once

#include "net/rows.h"
#include "net/window.h"
#include "net/window_tile.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

constexpr int64_t BAND_BYTES = 96 << 10;  // of sums that a band keeps in cache
constexpr int64_t WINDOW_DEPTH = 128;     // of k at a time: its weights stay in L1
constexpr int64_t SEGMENTS = 32;          // of a chunk
constexpr int64_t FEW_CHAINS = 6;         // too few rows for tiles of one pixel

// Output rows of pixels that a unit of work takes, for one panel or two.
struct Bands {
    int64_t panels, height, count;  // of a unit; of a panel
    int64_t groups;

    int64_t units() const { return groups * count; }
};

template <typename T>
Bands bands_of(const Window<T>& w, int64_t rows, int64_t ranks) {
    const Side& to = w.product();
    const bool pairs = to.blocks() > 1 && (ranks == 1 || to.blocks() / 2 % ranks == 0);
    const int64_t panels = pairs ? 2 : 1, groups = (to.blocks() + panels - 1) / panels;
    const int64_t line = rows * to.width * to.lanes * panels * int64_t(sizeof(T));
    const int64_t step = w.row_step();
    int64_t height = BAND_BYTES / (line ? line : 1), wanted = (2 * ranks + groups - 1) / groups;
    const int64_t even = ranks > 1 ? (to.height + wanted - 1) / wanted : to.height;
    height = (height < even ? height : even) / step * step;
    height = height < step ? step : height < to.height ? height : to.height;
    return {panels, height, (to.height + height - 1) / height, groups};
}

// Elements of scratch that a band of at most `rows` rows takes.
template <typename T>
int64_t band_size(const Window<T>& w, int64_t rows) {
    const Side& to = w.product();
    const int64_t line = rows * to.width * to.lanes * 2, least = w.row_step() * line;
    const int64_t most = BAND_BYTES / int64_t(sizeof(T));
    return least > most ? least : most < to.height * line ? most : to.height * line;
}

// The segments of k of one class of outputs, chunk by chunk, in the order of Window::k.
template <typename T>
struct Chunks {
    const Window<T>& w;
    const AxisClass &y, &x;
    int64_t outer = 0, row = 0, column = 0, inner = 0;  // channels, taps, channels of a block
    int64_t count = 0;
    Segment segments[SEGMENTS] = {};

    // Whether there is another chunk.
    bool next() {
        const int64_t lanes = w.product().lanes;
        int64_t depth = 0;
        count = 0;
        while (outer < outers() && y.taps && x.taps) {
            const Segment one = segment();
            Segment* last = count ? segments + count - 1 : nullptr;
            const bool follows = last && last->x + last->count == one.x &&
                                 last->weights + last->count * lanes == one.weights;
            if (depth && depth + one.count > WINDOW_DEPTH) break;
            if (!follows && count == SEGMENTS) break;
            depth += one.count;
            if (follows)
                last->count += one.count;
            else
                segments[count++] = one;
            step();
        }
        return count > 0;
    }

  private:
    bool by_channel() const { return w.in.lanes == 1 && !w.spreads(); }
    int64_t outers() const { return by_channel() ? w.in.channels : 1; }
    Segment segment() const {
        const Tap &down = w.y.taps[y.begin + row], &along = w.x.taps[x.begin + column];
        const int64_t across = w.spreads() ? 1 : w.pixels().x.kernel, channel = outer + inner;
        const int64_t left = w.in.channels - channel;
        return {w.in.place(channel, down.input * w.in.width + along.input),
                w.k(channel, down.weight * across + along.weight) * w.product().lanes,
                left < w.in.lanes ? left : w.in.lanes};
    }
    void step() {
        if (!by_channel() && (inner += w.in.lanes) < w.in.channels) return;
        inner = 0;
        if (++column < x.taps) return;
        column = 0;
        if (++row < y.taps) return;
        row = 0, ++outer;
    }
};

// The longest dimension first, and neighbouring ones joined where steps allow.
inline void order(Dimension (&grid)[3]) {
    if (grid[1].x == grid[2].count * grid[2].x && grid[1].tile == grid[2].count * grid[2].tile) {
        grid[2].count *= grid[1].count;
        grid[1].count = 1;
    }
    int longest = 0;
    if (grid[0].count < ROWS)
        for (int i = 1; i < 3; ++i)
            if (grid[i].count > grid[longest].count) longest = i;
    const Dimension first = grid[longest];
    grid[longest] = grid[0];
    grid[0] = first;
}

// Sums of one class of outputs in a band, into a tile whose rows are `stride` apart; added to what
// is there where `add`.
template <typename T>
void multiply_class(const Window<T>& w, const T* x, int64_t ldx, int64_t rows, int64_t panel,
                    int64_t panels, const AxisClass& down, const AxisClass& along, Range band,
                    T* tile, int64_t stride, bool add) {
    const Side &in = w.in, &to = w.product();
    const Range own = down.within(band);
    if (!own.size()) return;
    Dimension grid[3] = {
        {rows, ldx, stride},
        {own.size(), w.y.apart * in.width * in.lanes, down.step * to.width * to.lanes},
        {along.count, w.x.apart * in.lanes, along.step * to.lanes}};
    order(grid);
    const int64_t y = down.first + own.begin * down.step - band.begin;
    T* at = tile + (y * to.width + along.first) * to.lanes;
    const T* from = x + own.begin * w.y.apart * in.width * in.lanes;
    const int64_t next_tile = band.size() * to.width * to.lanes;
    const int64_t vectors = panels * to.lanes / width<T>, next = w.depth() * to.lanes;
    Chunks<T> chunks = {w, down, along};
    while (chunks.next()) {
        window_grid(from, w.panel(panel), next, chunks.segments, chunks.count, at, next_tile, grid,
                    vectors, add);
        add = true;
    }
    if (!add)  // no tap: a tile of no segments is zero
        window_grid(from, w.panel(panel), next, chunks.segments, 0, at, next_tile, grid, vectors,
                    false);
}

// Depthwise sums of a class: every lane has its own channel; a caller's row of one pixel ends with
// its channels.
template <typename T>
void multiply_each(const Window<T>& w, const T* x, int64_t ldx, int64_t rows, int64_t panel,
                   const AxisClass& down, const AxisClass& along, Range band, T* tile,
                   int64_t stride) {
    const Side &in = w.in, &to = w.out;
    const Range own = down.within(band);
    const T* weights = w.panel(panel);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = own.begin; i < own.end; ++i)
            for (int64_t j = 0; j < along.count; ++j) {
                const int64_t y = down.first + i * down.step - band.begin;
                const int64_t at = (y * to.width + along.first + j * along.step) * to.lanes;
                for (int64_t lane = 0; lane < to.lanes; lane += width<T>) {
                    const int64_t left = in.channels - panel * in.lanes - lane,
                                  n = left < width<T> ? (left > 0 ? left : 0) : width<T>;
                    Vec<T> sum = {};
                    for (int64_t a = 0; a < down.taps; ++a)
                        for (int64_t b = 0; b < along.taps; ++b) {
                            const Tap &row = w.y.taps[down.begin + a],
                                      &column = w.x.taps[along.begin + b];
                            const int64_t pixel = (row.input + i * w.y.apart) * in.width +
                                                  column.input + j * w.x.apart;
                            const int64_t tap = row.weight * w.pixels().x.kernel + column.weight;
                            const T* from = x + r * ldx + in.place(panel * in.lanes, pixel) + lane;
                            const Vec<T> h = n == width<T> ? load(from) : load(from, n);
                            sum = fma(h, load(weights + tap * to.lanes + lane), sum);
                        }
                    store<T>(tile + r * stride + at + lane, sum);
                }
            }
}

// The product of `rows` rows with the window's panels: epilogue(tile) for this worker's share of
// the output's bands. `ranks` workers share them.
template <typename T, typename Epilogue>
void window_product(const Window<T>& w, const T* x, int64_t ldx, int64_t rows, int64_t rank,
                    int64_t ranks, T* scratch, Epilogue epilogue) {
    const Side& to = w.product();
    const Bands bands = bands_of(w, rows, ranks);
    const Range own = share(bands.units(), rank, ranks);
    const bool singly = rows < FEW_CHAINS && w.in.lanes > 1 && !w.depthwise;
    for (int64_t u = own.begin; u < own.end; ++u) {
        const int64_t panel = u / bands.count * bands.panels, y = u % bands.count * bands.height;
        const int64_t left = to.blocks() - panel;
        const int64_t panels = left < bands.panels ? left : bands.panels;
        const Range band = {y, y + bands.height < to.height ? y + bands.height : to.height};
        const int64_t size = band.size() * to.width * to.lanes, stride = panels * size;
        if (singly) fill(scratch, T(0), rows * stride);
        for (const AxisClass& down : singly ? w.y.singly : w.y.together)
            for (const AxisClass& along : singly ? w.x.singly : w.x.together) {
                if (!w.depthwise)
                    multiply_class(w, x, ldx, rows, panel, panels, down, along, band, scratch,
                                   stride, singly);
                for (int64_t p = 0; w.depthwise && p < panels; ++p)
                    multiply_each(w, x, ldx, rows, panel + p, down, along, band, scratch + p * size,
                                  stride);
            }
        for (int64_t p = 0; p < panels; ++p) {
            const int64_t first = to.place((panel + p) * to.lanes, y * to.width);
            const int64_t rest = to.pixels() == 1 ? to.channels - first : size;
            epilogue(Tile<T>{scratch + p * size, stride, first, rest < size ? rest : size, size});
        }
    }
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
