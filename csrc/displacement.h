// What the kernels of a network's displacement are called with, in float64 alone.
#pragma once

#include "calls.h"

namespace vaefast {

// What a bound of a displacement knows of an activation φ, as vaefast/functional/secants.py has it.
struct CurveFacts {
    double least, steepest;  // inf φ', sup |φ'|; NaN where φ' is unbounded and increases
    double error;            // of a secant
    double turns[2];         // where φ' turns, for those whose slopes are looked for between them
    bool straight;           // piecewise linear
};

// Pre-activations of all layers and what rounding leaves of the first layer's.
struct DisplacementCentres {
    Rows<double> pre;       // [B, all layers' outputs]
    Rows<double> rounding;  // [B, H₁]
    Rows<const double> x;   // [B, D]
    int64_t B;
    Network<double> net;
};

// Units are what activations are applied to, MaxMin's a pair's difference: one range and one
// relaxation each. The first layer's product is with F, F Fᵀ = W₁W₁ᵀ.
struct NetDisplacementBound {
    double* gram;            // [B, groups, n, n] of the outputs' rows pulled back to the input
    double* rest;            // [B, groups], what deviations add; infinite where a bound overflows
    double* rounding;        // [B, groups]
    Rows<double> low, high;  // [B, all units], null where they are not wanted
    Rows<const double> pre, first_rounding;  // of DisplacementCentres
    const double* radius;                    // [B]
    Rows<const double> scale;                // [B, m], null for ones
    int64_t B, groups;
    Rows<const double> factor;  // F [H₁, columns]
    int64_t columns;
    bool triangular;              // F[i, j] = 0 where j > i
    const double* feature_norms;  // [H₁], of W₁'s rows
    const double* unit_norms;     // [first layer's units], of F's rows
    double slack;                 // of a product, per unit of what the radius moves
    const CurveFacts* curves;     // of each layer
    Network<double> net;
};

}  // namespace vaefast
