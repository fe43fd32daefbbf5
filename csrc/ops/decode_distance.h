// Draw latents, decode, compare with a centre, count: no reconstruction is ever stored.
#pragma once

#include "net/likelihoods.h"
#include "net/run_blocks.h"
#include "simd/philox.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Rows n of the call: sample n % samples of input n / samples.
template <typename T>
struct Samples {
    T* z;  // [rows, d]
    int64_t stride;
    double* squares;  // [rows, panels of D], shares of the squared distance
};

template <typename T>
Samples<T> take_samples(Arena& arena, const Network<T>& net, int64_t rows) {
    const int64_t stride = padded<T>(net.inputs());
    return {arena.take<T>(rows * stride), stride,
            arena.take<double>(rows * panels_of<T>(net.outputs()))};
}

// z = mean + std·η for rows `own` of the block.
template <typename T>
void draw_latents(const DecodeDistance<T>& call, const Samples<T>& to, int64_t first, Range own) {
    const int64_t d = call.net.inputs();
    for (int64_t r = own.begin; r < own.end; ++r) {
        const int64_t b = (first + r) / call.samples, s = (first + r) % call.samples;
        const T *mean = call.mean[b], *std = call.std[b];
        T* z = to.z + r * to.stride;
        normals({call.seed, call.index[b], uint32_t(call.first_sample + s), 0, Use::latent}, z, d);
        for (int64_t j = 0; j < d; ++j) z[j] = mean[j] + std[j] * z[j];
    }
}

// Σ (out − centre)² over n <= block pixels.
template <typename T>
double squared_distance(const T* out, const T* centre, int64_t n) {
    T terms[block<T>] = {};
    for_each_vector<T>(n, [&](int64_t j, int64_t left) VAEFAST_FLAT {
        const Vec<T> difference = load(out + j, left) - load(centre + j, left);
        store<T>(terms + j, difference * difference, left);
    });
    return sum_block<T>(terms);
}

// The last layer on h: the block's squares.
template <typename T>
void measure(const DecodeDistance<T>& call, const Pass<T>& pass, const Samples<T>& of,
             int64_t first, const T* h, int64_t stride) {
    static_assert(block<T> == PANEL<T>, "a panel's share is one block of pixels");
    const int64_t last = pass.net.depth - 1, panels = panels_of<T>(call.net.outputs());
    pass.advance(h, stride, pass.net[last], [&](const Tile<T>& tile) {
        for (int64_t r = 0; r < pass.rows; ++r) {
            const T* centre = call.centre[(first + r) / call.samples] + tile.first;
            double* squares = of.squares + r * panels + tile.first / PANEL<T>;
            T* out = tile[r];
            activate_row<T>(pass, last, tile, r, out, nullptr);
            for (int64_t j = 0; j < tile.count; j += PANEL<T>) {
                const int64_t n = tile.count - j < PANEL<T> ? tile.count - j : PANEL<T>;
                squares[j / PANEL<T>] = squared_distance(out + j, centre + j, n);
            }
        }
    });
}

// Whether a sum of squares lies within r; false for NaN.
template <typename T>
bool within(const double* squares, int64_t count, T r) {
    double sum = 0;
    for (int64_t p = 0; p < count; ++p) sum += squares[p];
    return __builtin_sqrt(sum) <= double(r);
}

// Add the hits of rows `own` of the block; teams may share an input.
template <typename T>
void count_hits(const DecodeDistance<T>& call, const Samples<T>& of, int64_t first, Range own) {
    const int64_t d = call.net.inputs(), D = call.net.outputs(), panels = panels_of<T>(D);
    for (int64_t r = own.begin; r < own.end;) {
        const int64_t b = (first + r) / call.samples;
        int64_t hits = 0;
        for (; r < own.end && (first + r) / call.samples == b; ++r)
            hits += within(of.squares + r * panels, panels, call.r[b]);
        if (hits && all_finite(call.mean[b], d) && all_finite(call.std[b], d) &&
            all_finite(call.centre[b], D) && all_finite(call.r + b, 1))
            __atomic_fetch_add(call.hits + b, hits, __ATOMIC_RELAXED);
    }
}

template <typename T>
void distance_block(const DecodeDistance<T>& call, const Pass<T>& pass, const Samples<T>& samples,
                    int64_t first) {
    const Worker& worker = pass.worker;
    const Range rows = share(pass.rows, worker.rank, worker.ranks);
    draw_latents(call, samples, first, rows);
    worker.sync();
    const int64_t hidden = pass.net.depth - 1;
    const T* h = samples.z;
    int64_t stride = samples.stride;
    forward_hidden(pass, h, stride, hidden);
    if (hidden) h = pass.tape.post[hidden - 1], stride = pass.tape.stride[hidden - 1];
    measure(call, pass, samples, first, h, stride);
    worker.sync();
    count_hits(call, samples, first, rows);
}

template <typename T>
Outcome decode_distance(const DecodeDistance<T>& call, const Call& how) {
    const auto take = [&](Arena& arena, int64_t rows) {
        return take_samples(arena, call.net, rows);
    };
    return run_blocks(call.net, call.B * call.samples, how, false, take,
                      [&](const Pass<T>& pass, int64_t first, const Samples<T>& samples) {
                          distance_block(call, pass, samples, first);
                      });
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
