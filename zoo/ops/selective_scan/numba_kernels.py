"""The loops of the selective scan that numba compiles, one per direction, in float32; imported only where they run.

Rows of the batch are independent: a loop advances one after the other. The innermost loops run over the channels, in
vector instructions, the exponential included; of what has a state axis only the states between chunks and, in backward,
one chunk's work space are stored. The equations are those of chunked.py.

B batch, L seq_len, D channels, N state size; T steps of a chunk, K chunks.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from zoo.ops.compiled import compiled

# exp(x) = 2^k exp(r), k = round(x / ln 2), |r| <= ln 2 / 2; adding ROUND leaves k in the low bits of the mantissa
LOG2_E, ROUND = np.float32(1.4426950408889634), np.float32(1.5 * 2**23)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # their sum is ln 2; k LN2_HIGH is exact
LOWEST, HIGHEST = np.float32(-87.6), np.float32(89.0)
# exp(r) = 1 + r + E2 r^2 + ... + E6 r^6, relative error 3.1e-9
E2, E3, E4 = np.float32(0.4999999343209919), np.float32(0.16666520398846524), np.float32(0.04166839078965193)
E5, E6 = np.float32(0.008368745127121375), np.float32(0.0013814539880057)
ONE, TWO = np.float32(1), np.float32(2)
MANTISSA, BIAS = np.int32(23), np.int32(126 << 23)


@intrinsic
def _bits(context, x):
    """The bits of a float32 as an int32; of another type it would be a conversion, and does not compile."""
    if x != types.float32:
        return None
    return types.int32(x), lambda _, builder, __, args: builder.bitcast(args[0], ir.IntType(32))


@intrinsic
def _from_bits(context, bits):
    """The float32 of these bits."""
    return types.float32(types.int32), lambda _, builder, __, args: builder.bitcast(args[0], ir.FloatType())


@compiled(fastmath={"contract"}, error_model="numpy")
def exp(x):
    """exp(x) of a float32 to 1.2 units in the last place, with no branch and no table, so that loops over it vectorise.

    Below 2^-125 it is 0; inf and nan are as they should be.
    """
    x = LOWEST if x < LOWEST else x  # nan stays
    x = HIGHEST if x > HIGHEST else x
    shifted = x * LOG2_E + ROUND
    k = shifted - ROUND
    r = x - k * LN2_HIGH
    r = r - k * LN2_LOW
    p = ((((E6 * r + E5) * r + E4) * r + E3) * r + E2) * r + ONE
    p = p * r + ONE
    return TWO * p * _from_bits(np.int32((_bits(shifted) << MANTISSA) + BIAS))  # 2^(k - 1): 2^128 is no float32


# sums may be reordered into vectors; nan and inf are kept
_kernel = partial(compiled, fastmath={"contract", "reassoc"}, error_model="numpy")


@_kernel
def forward(u, delta, A, B, C, h0, y, h_last, between, T, first, last):
    """Rows first to last: u, delta, y (B, L, D), A (N, D), B, C (B, L, N), h0, h_last (B, N, D), between (K, B, N, D).

    `between` of no chunks keeps no states.
    """
    (_, L, D), N = u.shape, len(A)
    x, h = np.empty(D, u.dtype), np.empty((N, D), u.dtype)
    for b in range(first, last):
        for n in range(N):
            for d in range(D):
                h[n, d] = h0[b, n, d]
        for t in range(L):
            k = t // T
            if t == k * T and k < len(between):
                for n in range(N):
                    for d in range(D):
                        between[k, b, n, d] = h[n, d]
            for d in range(D):
                x[d] = delta[b, t, d] * u[b, t, d]
                y[b, t, d] = 0
            for n in range(N):
                B_n, C_n = B[b, t, n], C[b, t, n]
                for d in range(D):
                    h_d = exp(delta[b, t, d] * A[n, d]) * h[n, d] + B_n * x[d]
                    h[n, d] = h_d
                    y[b, t, d] += C_n * h_d
        for n in range(N):
            for d in range(D):
                h_last[b, n, d] = h[n, d]


@_kernel
def backward(u, delta, A, B, C, between, dy, g, du, ddelta, dA, dB, dC, T, first, last):
    """Rows first to last; g (B, N, D) is dh_last before and dh0 after it, dA (B, N, D) is added to.

    a (T, N, D) holds exp(delta A) of a chunk, h (T + 1, N, D) its states and the one before them.
    """
    (_, L, D), N, K = u.shape, len(A), len(between)
    x, pA = np.empty((T, D), u.dtype), np.empty(D, u.dtype)  # pA: sum_n p A
    a, h = np.empty((T, N, D), u.dtype), np.empty((T + 1, N, D), u.dtype)
    dA_chunk = np.empty((N, D), u.dtype)  # rounds less than one sum over all steps
    for b in range(first, last):
        for k in range(K - 1, -1, -1):
            steps = min(T, L - k * T)
            for n in range(N):
                for d in range(D):
                    h[0, n, d] = between[k, b, n, d]
                    dA_chunk[n, d] = 0
            for i in range(steps):
                t = k * T + i
                for d in range(D):
                    x[i, d] = delta[b, t, d] * u[b, t, d]
                for n in range(N):
                    B_n = B[b, t, n]
                    for d in range(D):
                        a_d = exp(delta[b, t, d] * A[n, d])
                        a[i, n, d] = a_d
                        h[i + 1, n, d] = a_d * h[i, n, d] + B_n * x[i, d]
            for i in range(steps - 1, -1, -1):
                t = k * T + i
                for d in range(D):
                    du[b, t, d] = 0  # first d(delta u)
                    pA[d] = 0
                for n in range(N):
                    B_n, C_n = B[b, t, n], C[b, t, n]
                    dB_n = dC_n = np.float32(0)
                    for d in range(D):
                        g_d = C_n * dy[b, t, d] + g[b, n, d]
                        dC_n += dy[b, t, d] * h[i + 1, n, d]
                        dB_n += g_d * x[i, d]
                        du[b, t, d] += g_d * B_n
                        g_d *= a[i, n, d]
                        g[b, n, d] = g_d
                        p = g_d * h[i, n, d]
                        pA[d] += p * A[n, d]
                        dA_chunk[n, d] += p * delta[b, t, d]
                    dB[b, t, n], dC[b, t, n] = dB_n, dC_n
                for d in range(D):
                    dx = du[b, t, d]
                    du[b, t, d] = dx * delta[b, t, d]
                    ddelta[b, t, d] = dx * u[b, t, d] + pA[d]
            for n in range(N):
                for d in range(D):
                    dA[b, n, d] += dA_chunk[n, d]
