"""Compiled loops over changes of logits, for float32 on the CPU.

One pass over each row while it lies in the processor's cache, where tensor operations would walk
through memory once for each sum. The loops let go of Python's lock, so rows run side by side.
Exponential and logarithm are those of Cephes' single-precision library (S. Moshier, 1992): range
reduction and a minimax polynomial, which the compiler turns into vector instructions.

``no_type_check`` keeps the tests' check of signatures away: numba compiles functions, not wrappers.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from llvmlite.ir import FloatType, IntType
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

GROUP = 16
"""Consecutive columns of which :func:`scan` keeps the largest magnitude."""
_CHUNK = 2048
_TALLY = 1024
_TALLY_BITS = 17
_ZERO, _HALF, _ONE = (np.float32(value) for value in (0.0, 0.5, 1.0))
LARGEST_STRETCH = np.float32(60.0)
"""At 2 D / b above it the bent logit is b."""
_LOG2_E = np.float32(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LARGEST_EXPONENT = np.float32(88.0)
_ROOT_HALF_BITS = np.int32(0x3F3504F3)
_MANTISSA_BITS, _BIAS = np.int32(23), np.int32(127)
# Sums may be taken in any order, which vector lanes need; NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
_EXACT = {"contract", "nsz"}
_LOOP: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": _FAST}
_INLINE: dict[str, Any] = {"nogil": True, "inline": "always", "fastmath": _EXACT}


def _loop(function: Callable[..., Any]) -> Any:
    """Compile when first called, and keep the result beside this file or in the user's cache."""
    try:
        return njit(cache=True, **_LOOP)(function)
    except RuntimeError:  # nowhere to keep it: compile in every process
        return njit(**_LOOP)(function)


@intrinsic
@no_type_check
def _float_of(context: Any, bits: Any) -> Any:
    """The float32 that an int32's bits spell."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], FloatType())

    return types.float32(types.int32), generate


@intrinsic
@no_type_check
def _bits_of(context: Any, value: Any) -> Any:
    """A float32's bits as int32."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], IntType(32))

    return types.int32(types.float32), generate


@njit(**_INLINE)
@no_type_check
def _expm1(x: Any) -> Any:
    """e^x - 1 as 2^k (e^r - 1) + (2^k - 1), which keeps the digits of a small x."""
    x = _LARGEST_EXPONENT if x > _LARGEST_EXPONENT else x
    x = -_LARGEST_EXPONENT if x < -_LARGEST_EXPONENT else x
    k = np.floor(x * _LOG2_E + _HALF)
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r
    power = _float_of((np.int32(k) + _BIAS) << _MANTISSA_BITS)
    return p * power + (power - _ONE)


@njit(**_INLINE)
@no_type_check
def _ln(x: Any) -> Any:
    """Natural logarithm of a normal x > 0; a finite number at 0, so that 0 ln 0 is 0."""
    bits = _bits_of(x)
    exponent = (bits - _ROOT_HALF_BITS) >> _MANTISSA_BITS
    m = _float_of(bits - (exponent << _MANTISSA_BITS)) - _ONE
    p = np.float32(7.0376836292e-2)
    p = p * m + np.float32(-1.1514610310e-1)
    p = p * m + np.float32(1.1676998740e-1)
    p = p * m + np.float32(-1.2420140846e-1)
    p = p * m + np.float32(1.4249322787e-1)
    p = p * m + np.float32(-1.6668057665e-1)
    p = p * m + np.float32(2.0000714765e-1)
    p = p * m + np.float32(-2.4999993993e-1)
    p = p * m + np.float32(3.3333331174e-1)
    k = np.float32(exponent)
    return m + (p * m * m * m + k * _LN2_LOW - _HALF * m * m) + k * _LN2_HIGH


@_loop
@no_type_check
def bend(
    change: NDArray[np.float32],
    odds: NDArray[np.float32],
    scales: NDArray[np.float32],
    owners: NDArray[np.int64],
    first: int,
    stretch: np.float32,
) -> None:
    """See :meth:`sums.SoftCap.bend`; rows of ``change`` are given whole, because only then the compiler
    knows that their entries lie side by side. ``stretch`` is 2 / b.
    """
    width = odds.shape[1]
    for query in range(len(change)):
        row, owner = change[query, first : first + width], owners[query]
        clean, scale = odds[owner], scales[owner]
        for i in range(len(row)):
            x = row[i] * stretch
            grown = _expm1(LARGEST_STRETCH if x > LARGEST_STRETCH else x)
            row[i] = scale[i] * grown / (clean[i] * (grown + _ONE) + _ONE)


@njit(nogil=True)
@no_type_check
def _gather(row: Any, peaks: Any, k: int, tally: Any, gathered: Any) -> int:
    """Gather magnitudes of a row among which its k largest are, and fill up with 0. Returns how
    many; 0 where there are no more than k groups, or ``gathered`` has no room.

    The k largest lie in groups whose maximum is no smaller than the k-th largest maximum. That is
    taken here to a part in 64: maxima are counted by the upper bits of their distance from the
    row's largest.
    """
    if len(peaks) <= k:
        return 0
    largest = _bits_of(peaks.max())
    tally[:] = 0
    for group in range(len(peaks)):
        step = (largest - _bits_of(peaks[group])) >> _TALLY_BITS
        tally[min(step, _TALLY - 1)] += 1
    step, above = 0, tally[0]
    while above < k:
        step += 1
        above += tally[step]
    level = _ZERO
    if step < _TALLY - 1:
        level = _float_of(np.int32(max(0, largest - ((step + 1) << _TALLY_BITS) + 1)))
    place = 0
    for group in range(len(peaks)):
        if peaks[group] >= level:
            if place + GROUP > len(gathered):
                return 0
            for i in range(GROUP * group, min(GROUP * (group + 1), len(row))):
                magnitude = abs(row[i])
                gathered[place] = magnitude
                place += magnitude >= level
    gathered[place:] = _ZERO
    return place


@_loop
@no_type_check
def scan(
    change: NDArray[np.float32],
    shares: NDArray[np.float32],
    owners: NDArray[np.int64],
    thresholds: NDArray[np.float32],
    sums: NDArray[np.float64],
    k: int,
    gathered: NDArray[np.float32],
    counts: NDArray[np.int64],
) -> None:
    """Sum up the entries D of each query, and gather its largest magnitudes.

    Args:
        change: D, ``[query, vocab]``.
        shares: p, ``[context, vocab]``.
        owners: the context of each query.
        thresholds: those whose crossings are counted.
        sums: ``[query, 6 + threshold]``: sum abs(D), sum abs(D) ln abs(D), sum p (e^D - 1), sum
            p (e^D - 1) D, sum p D, the largest magnitude, and how many lie above each threshold.
        k: how many of the largest magnitudes are wanted.
        gathered: ``[query, place]``: magnitudes among which the k largest are, the rest 0.
        counts: how many were gathered of each row; 0 where ``vocab`` is no larger than ``GROUP k``,
            or they are more than the places.
    """
    peaks = np.empty(-(-change.shape[1] // GROUP), dtype=np.float32)
    tally = np.empty(_TALLY, dtype=np.int32)
    for query in range(len(change)):
        row, p, total_of = change[query], shares[owners[query]], sums[query]
        for start in range(0, len(row), _CHUNK):
            part, weights = row[start : start + _CHUNK], p[start : start + _CHUNK]
            width = len(part)
            total, weighted = _ZERO, _ZERO
            for i in range(width):
                magnitude = abs(part[i])
                total += magnitude
                weighted += magnitude * _ln(magnitude)
            growth, product, mean = _ZERO, _ZERO, _ZERO
            for i in range(width):
                grown = weights[i] * _expm1(part[i])
                growth += grown
                product += grown * part[i]
                mean += weights[i] * part[i]
            total_of[0] += total
            total_of[1] += weighted
            total_of[2] += growth
            total_of[3] += product
            total_of[4] += mean
            for j in range(len(thresholds)):
                count, level = _ZERO, thresholds[j]
                for i in range(width):
                    count += _ONE if abs(part[i]) > level else _ZERO
                total_of[6 + j] += count
            whole = width // GROUP
            for group in range(whole):
                peak = _ZERO
                for i in range(GROUP):
                    magnitude = abs(part[GROUP * group + i])
                    peak = magnitude if magnitude > peak else peak
                peaks[start // GROUP + group] = peak
            if GROUP * whole < width:
                peaks[start // GROUP + whole] = np.abs(part[GROUP * whole :]).max()
        total_of[5] = peaks.max()
        counts[query] = _gather(row, peaks, k, tally, gathered[query])


@_loop
@no_type_check
def add_up(
    magnitudes: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    counted: NDArray[np.float32],
    level: np.float32,
    scales: NDArray[np.float32],
    shares: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> None:
    """Sum up non-negative entries a of each row.

    Args:
        magnitudes: a.
        thresholds: those whose crossings are counted.
        counted: 1 for the columns whose crossings of ``level`` are counted, else 0.
        level: see ``counted``.
        scales: s, each column's own unit.
        shares: thresholds of a / s.
        sums: ``[row, 5 + threshold + share]``: sum a, sum a ln a, sum a^2, how many of the counted
            columns lie above the level, sum a / s, and how many of all columns above each threshold and
            each share.
    """
    for place in range(len(magnitudes)):
        row, total_of = magnitudes[place], sums[place]
        for start in range(0, len(row), _CHUNK):
            part, taken = row[start : start + _CHUNK], counted[start : start + _CHUNK]
            units = scales[start : start + _CHUNK]
            total, weighted, square, some, mass = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
            for i in range(len(part)):
                total += part[i]
                weighted += part[i] * _ln(part[i])
                square += part[i] * part[i]
                some += taken[i] if part[i] > level else _ZERO
                mass += part[i] / units[i]
            total_of[0] += total
            total_of[1] += weighted
            total_of[2] += square
            total_of[3] += some
            total_of[4] += mass
            for j in range(len(thresholds)):
                count, limit = _ZERO, thresholds[j]
                for i in range(len(part)):
                    count += _ONE if part[i] > limit else _ZERO
                total_of[5 + j] += count
            for j in range(len(shares)):
                count, limit = _ZERO, shares[j]
                for i in range(len(part)):
                    count += _ONE if part[i] / units[i] > limit else _ZERO
                total_of[5 + len(thresholds) + j] += count
