// Gradients of log p through a network that keep the activations' derivatives, and the products
// with second derivatives of log p at the same inputs: tangents forward, their cotangents back.
#pragma once

#include "net/curvature.h"
#include "net/run_blocks.h"

namespace vaefast {
namespace VAEFAST_LEVEL {

// Of the activations at one input a row: rows of layer l are the tape's stride[l] apart.
template <typename T>
struct Derivatives {
    T** slope;   // φ'(a_l); null where φ is the identity
    T** second;  // φ''(a_l) times the cotangent of h_l, once a tangent passed times that of a_l;
                 // null where φ is piecewise linear
    T* out;      // h of the last layer
};

template <typename T>
Derivatives<T> take_derivatives(Arena& arena, const Network<T>& net, int64_t rows) {
    Derivatives<T> derivatives = {arena.take<T*>(net.depth), arena.take<T*>(net.depth), nullptr};
    for (int64_t l = 0; l < net.depth; ++l) {
        const Activation kind = net.layers[l].activation;
        const int64_t size = rows * padded<T>(side_out(net, l).size());
        T* slope = kind == Activation::identity ? nullptr : arena.take<T>(size);
        T* second = is_curved(kind) ? arena.take<T>(size) : nullptr;
        if (l == net.depth - 1) derivatives.out = arena.take<T>(size);
        if (arena.base) derivatives.slope[l] = slope, derivatives.second[l] = second;
    }
    return derivatives;
}

// Elements [at, ...) of rows that may be null.
template <typename T>
VAEFAST_INLINE T* from(T* rows, int64_t at) {
    return rows ? rows + at : nullptr;
}

// to ← to·v and to ← to + v, for `count` elements, a multiple of width<T>.
template <typename T>
void multiply_by(T* to, const T* v, int64_t count) {
    for (int64_t j = 0; j < count; j += width<T>) store<T>(to + j, load(to + j) * load(v + j));
}
template <typename T>
void add_to(T* to, const T* v, int64_t count) {
    for (int64_t j = 0; j < count; j += width<T>) store<T>(to + j, load(to + j) + load(v + j));
}

// Rows of a pass with the images that they belong to: row r is number[r] of the call.
template <typename T>
struct Targets {
    const Target<T>& target;
    const int64_t* number;

    int64_t image(int64_t r) const { return number[r] / target.chains; }
    // Run(kind, image, its pixels from number `first` on) of row r.
    template <typename Run>
    void at(int64_t r, int64_t first, Run run) const {
        const int64_t b = image(r);
        with_kind(target.likelihood, target.std,
                  [&](auto kind) { run(kind, b, target.x[b] + first); });
    }
};

// A tile of layer l's sums becomes h in `post`, φ' and φ'' in `derivatives`, at element `at`.
template <typename T>
void differentiate_row(const Pass<T>& pass, const Derivatives<T>& derivatives, int64_t l,
                       const Tile<T>& tile, int64_t r, T* post, int64_t at) {
    const PackedLayer<T>& layer = pass.net[l];
    T *slope = from(derivatives.slope[l], at), *second = from(derivatives.second[l], at);
    activate_row(pass, l, tile, r, post + at, slope);  // the pre-activations stay in the tile
    if (second) second_derivative(layer.activation, tile[r], post + at, slope, second, tile.padded);
}

// Forward from x; the scores d log p / d out end as cotangents of the last pre-activations, up[0].
template <typename T>
void forward_with_derivatives(const Pass<T>& pass, const Targets<T>& rows,
                              const Derivatives<T>& derivatives, const T* x, int64_t stride) {
    const Tape<T>& tape = pass.tape;
    const int64_t last = pass.net.depth - 1;
    pass.input = {x, stride};
    for (int64_t l = 0; l <= last; ++l) {
        T* post = l < last ? tape.post[l] : derivatives.out;
        pass.advance(x, stride, pass.net[l], [&](const Tile<T>& tile) {
            for (int64_t r = 0; r < pass.rows; ++r) {
                const int64_t at = r * tape.stride[l] + tile.first;
                differentiate_row(pass, derivatives, l, tile, r, post, at);
                if (l < last) continue;
                T* up = tape.up[0] + r * tape.up_stride + tile.first;
                rows.at(r, tile.first, [&](auto kind, int64_t b, const T* pixels) {
                    score<decltype(kind)>(rows.target.std, b, tile.first, post + at, pixels, up,
                                          tile.count);
                });
                if (derivatives.second[l]) multiply_by(derivatives.second[l] + at, up, tile.padded);
                multiply_slope(pass.net[l].activation, from(derivatives.slope[l], at), up,
                               tile.padded);
            }
        });
        pass.worker.sync();
        x = post;
        stride = tape.stride[l];
    }
}

// Cotangents of the last pre-activations in up[now] go back to the input: at_layer(l, row, at)
// turns those of h_l into those of a_l, which lie at element `at` of layer l's rows; epilogue(tile)
// gets the input's. Ends with the team's barrier.
template <typename T, typename AtLayer, typename Epilogue>
void backward_by_layer(const Pass<T>& pass, int64_t now, AtLayer at_layer, Epilogue epilogue) {
    const Tape<T>& tape = pass.tape;
    for (int64_t l = pass.net.depth - 1; l >= 0; --l, now = 1 - now) {
        T* to = tape.up[1 - now];
        keep_skip(pass, l, tape.up[now]);
        if (l == 0) pass.worker.check_stop();
        pass.go_back(tape.up[now], tape.up_stride, pass.net[l], [&](const Tile<T>& tile) {
            add_skip(pass, l - 1, tile);
            if (l == 0) return epilogue(tile);
            for (int64_t r = 0; r < pass.rows; ++r) {
                at_layer(l - 1, tile[r], r * tape.stride[l - 1] + tile.first, tile.padded);
                copy(to + r * tape.up_stride + tile.first, tile[r], tile.padded);
            }
        });
        pass.worker.sync();
    }
}

// Both passes at x, whose rows belong to `rows`: epilogue(tile) gets Jᵀ d log p / d out. x may only
// change in epilogue.
template <typename T, typename Epilogue>
void gradient_with_derivatives(const Pass<T>& pass, const Targets<T>& rows,
                               const Derivatives<T>& derivatives, const T* x, int64_t stride,
                               Epilogue epilogue) {
    forward_with_derivatives(pass, rows, derivatives, x, stride);
    const auto at_layer = [&](int64_t l, T* row, int64_t at, int64_t count) {
        if (derivatives.second[l]) multiply_by(derivatives.second[l] + at, row, count);
        multiply_slope(pass.net[l].activation, from(derivatives.slope[l], at), row, count);
    };
    backward_by_layer(pass, 0, at_layer, epilogue);
}

// Tangents v of the input go forward: epilogue(tile, to) gets those of the output, and for each
// row where the cotangents of the last pre-activations belong.
template <typename T, typename Epilogue>
void tangents_forward(const Pass<T>& pass, const Derivatives<T>& derivatives, const T* v,
                      int64_t stride, Epilogue epilogue) {
    const Tape<T>& tape = pass.tape;
    const int64_t last = pass.net.depth - 1;
    const auto skip = [&](int64_t k, int64_t r) {
        return tape.skips && tape.skips[k + 1]
                   ? tape.skips[k + 1] + r * padded<T>(pass.net.side(k).size())
                   : nullptr;
    };
    const Range own = share(pass.rows, pass.worker.rank, pass.worker.ranks);
    for (int64_t r = own.begin; r < own.end && skip(-1, r); ++r)
        copy(skip(-1, r), v + r * stride, pass.net.in.size());
    pass.worker.sync();
    for (int64_t l = 0; l <= last; ++l) {
        const PackedLayer<T>& layer = pass.net[l];
        T* to = tape.up[l % 2];
        pass.advance(v, stride, layer, [&](const Tile<T>& tile) {
            for (int64_t r = 0; r < pass.rows; ++r) {
                const int64_t at = r * tape.stride[l] + tile.first;
                if (layer.residual != NO_RESIDUAL)
                    add_places(layer.out, tile.first, tile.count, pass.net.side(layer.residual),
                               skip(layer.residual, r), tile[r]);
                if (derivatives.second[l])
                    multiply_by(derivatives.second[l] + at, tile[r], tile.padded);
                multiply_slope(layer.activation, from(derivatives.slope[l], at), tile[r],
                               tile.padded);
                if (l < last) copy(to + r * tape.up_stride + tile.first, tile[r], tile.padded);
                if (l < last && skip(l, r)) copy(skip(l, r) + tile.first, tile[r], tile.padded);
            }
            if (l == last) epilogue(tile, to);
        });
        pass.worker.sync();
        v = to;
        stride = tape.up_stride;
    }
}

// The product of v with the second derivatives of log p at the input of `derivatives`, which it
// overwrites: epilogue(tile) gets d⟨J v, d log p / d out⟩ in the input; into_x of row r, from
// pixels[r] on, gets times[r]·d⟨...⟩/dx. v may only change in epilogue.
template <typename T, typename Epilogue>
void second_order_product(const Pass<T>& pass, const Targets<T>& rows,
                          const Derivatives<T>& derivatives, const T* v, int64_t stride,
                          Rows<T> into_x, const T* times, Epilogue epilogue) {
    const Tape<T>& tape = pass.tape;
    const int64_t last = pass.net.depth - 1;
    const auto add_curvature = [&](int64_t l, T* row, int64_t at, int64_t count) {
        multiply_slope(pass.net[l].activation, from(derivatives.slope[l], at), row, count);
        if (derivatives.second[l]) add_to(row, derivatives.second[l] + at, count);
    };
    tangents_forward(pass, derivatives, v, stride, [&](const Tile<T>& tile, T* to) {
        for (int64_t r = 0; r < pass.rows; ++r) {
            const int64_t at = r * tape.stride[last] + tile.first;
            rows.at(r, tile.first, [&](auto kind, int64_t b, const T*) {
                pull_pixel_tangents<decltype(kind)>(
                    rows.target.std, b, tile.first, derivatives.out + at, tile[r],
                    into_x[rows.number[r]] + tile.first, times[r], tile.count);
            });
            add_curvature(last, tile[r], at, tile.padded);
            copy(to + r * tape.up_stride + tile.first, tile[r], tile.padded);
        }
    });
    backward_by_layer(pass, last % 2, add_curvature, epilogue);
}

}  // namespace VAEFAST_LEVEL
}  // namespace vaefast
