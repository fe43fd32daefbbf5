// F with F Fᵀ = W₁W₁ᵀ and at most H₁ columns, which stands for a network's first product W₁ where
// only norms and inner products of what it gives are wanted.
#pragma once

#include "net/cholesky.h"
#include "net/lq.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

template <typename T>
struct Method {
    using Type = Cholesky;  // W₁W₁ᵀ in double holds more than its floats
};
template <>
struct Method<double> {
    using Type = Lq;  // W₁W₁ᵀ would square the condition number
};

template <typename T>
struct FirstFactor {
    Rows<T> rows;      // [H₁, min(D, H₁)], padded
    Packed<T> across;  // to be multiplied from the left; a lower triangle where D > H₁
    bool* nonfinite;   // whether W₁ holds NaN or infinity, where D > H₁
    double** scratch;  // per thread
    typename Method<T>::Type method;

    bool wide() const { return across.triangular; }
};

inline void take_method(Arena& arena, Lq& lq, int64_t H, int64_t D) { lq = take_lq(arena, H, D); }
inline void take_method(Arena& arena, Cholesky& cholesky, int64_t H, int64_t) {
    cholesky = take_cholesky(arena, H);
}

template <typename T>
FirstFactor<T> take_factor(Arena& arena, const Network<T>& net, int threads) {
    const int64_t D = net.inputs(), H = net.layers[0].outputs, k = D < H ? D : H;
    FirstFactor<T> factor = {};
    factor.rows = {arena.take<T>(H * padded<T>(k)), padded<T>(k)};
    factor.across = {arena.take<T>(packed_size<T>(k, H)), k, H, D > H};
    factor.nonfinite = arena.take<bool>(1);
    factor.scratch = arena.take<double*>(threads);
    if (D > H) take_method(arena, factor.method, H, D);
    for (int t = 0; t < threads; ++t) {
        double* scratch = arena.take<double>(D > H ? CHOLESKY_SCRATCH : 0);
        if (arena.base) factor.scratch[t] = scratch;
    }
    if (arena.base) *factor.nonfinite = false;
    return factor;
}

template <typename T>
void copy_row(const Layer<T>& from, int64_t j, T* to) {
    for (int64_t k = 0; k < from.inputs; ++k) to[k] = from.weight[j * from.row + k * from.column];
}

// L of W₁ and where its rows start, `stride` apart; ends with a barrier of all threads.
inline Rows<double> triangle(const FirstFactor<double>& factor, const Layer<double>& w,
                             const Packed<double>&, const Worker& worker) {
    const Lq& lq = factor.method;
    const Range own = share(lq.H, worker.id, worker.threads);
    for (int64_t h = own.begin; h < own.end; ++h) {
        copy_row(w, h, lq.a + h * lq.stride);
        if (!all_finite(lq.a + h * lq.stride, lq.D))
            __atomic_store_n(factor.nonfinite, true, __ATOMIC_RELAXED);
    }
    factorize(lq, worker, factor.scratch[worker.id]);
    return {lq.a, lq.stride};
}

inline Rows<double> triangle(const FirstFactor<float>& factor, const Layer<float>& w,
                             const Packed<float>& packed, const Worker& worker) {
    const Cholesky& cholesky = factor.method;
    double* scratch = factor.scratch[worker.id];
    const Range own = share_triangle(cholesky.H, worker);
    square(cholesky, w, packed, own, scratch);
    if (!all_finite(cholesky.squares + own.begin, own.size()))
        __atomic_store_n(factor.nonfinite, true, __ATOMIC_RELAXED);
    factorize(cholesky, worker, scratch);
    return {cholesky.g, cholesky.stride};
}

// The first `count` elements of a row of L and zeros, or NaN where `nonfinite`.
template <typename T>
void narrow_row(const double* from, T* to, int64_t count, int64_t width, bool nonfinite) {
    if (nonfinite) return fill(to, T(NAN), width);
    for (int64_t c = 0; c < count; ++c) to[c] = T(from[c]);
    fill(to + count, T(0), width - count);
}

// F of the first layer, whose packed weights are given; ends with a barrier of all threads.
template <typename T>
void make_factor(const FirstFactor<T>& factor, const Layer<T>& w, const Packed<T>& packed,
                 const Worker& worker) {
    const Range own = share(w.outputs, worker.id, worker.threads);
    const Rows<double> L = factor.wide() ? triangle(factor, w, packed, worker) : Rows<double>{};
    for (int64_t h = own.begin; h < own.end; ++h) {
        T* row = factor.rows[h];
        if (!factor.wide())
            copy_row(w, h, row);
        else
            narrow_row(L[h], row, h + 1, w.outputs, *factor.nonfinite);
    }
    worker.everyone->wait();
    const Range panels = share(factor.across.panels(), worker.id, worker.threads);
    pack(factor.across, factor.rows.data, 1, factor.rows.stride, panels.begin, panels.end);
    worker.everyone->wait();
}

// body(range) over this worker's panels: of a triangle the first weigh most, so each worker
// takes from both ends.
template <typename Body>
void share_panels(int64_t panels, bool triangular, const Worker& worker, Body body) {
    const int64_t parts = triangular ? 2 * worker.ranks : worker.ranks;
    const Range own = share(panels, worker.rank, parts);
    body(own);
    if (!triangular) return;
    body(share(panels, parts - 1 - worker.rank, parts));
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
