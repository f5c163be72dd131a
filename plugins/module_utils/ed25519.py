# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verifies Ed25519 signatures (RFC 8032, section 5.1.7) with nothing but the standard library.

Hosts that get a release need not have ``cryptography``. Only for public data: it takes a few
milliseconds, and how many depends on its input. Signing is done with ``cryptography``.
"""

from __future__ import annotations

import hashlib

# The curve -x^2 + y^2 = 1 + d x^2 y^2 over the integers modulo _P, and the order of its base.
_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT_OF_MINUS_ONE = pow(2, (_P - 1) // 4, _P)

# A point in extended coordinates: X, Y, Z, T with x = X/Z, y = Y/Z, x y = T/Z.
_NEUTRAL = (0, 1, 1, 0)


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether this is the key's signature (64 bytes) of the message; public_key: 32 bytes.

    Stricter than the RFC asks for: a key or an R of small order, which could vouch for messages
    nobody signed, and encodings that are not canonical are refused.
    """
    if len(public_key) != 32 or len(signature) != 64:
        return False
    key, first = _decode(public_key), _decode(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or first is None or scalar >= _L:
        return False
    if _is_small(key) or _is_small(first):
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    challenge = int.from_bytes(digest, "little") % _L
    return _equal(_times(scalar, _BASE), _add(first, _times(challenge, key)))


def _decode(encoded: bytes) -> tuple[int, int, int, int] | None:
    """The point of 32 bytes (RFC 8032, section 5.1.3); None if there is none."""
    y = int.from_bytes(encoded, "little")
    odd, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    above, below = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = above * pow(below, 3, _P) * pow(above * pow(below, 7, _P), (_P - 5) // 8, _P) % _P
    if (below * x * x + above) % _P == 0:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (below * x * x - above) % _P != 0 or (x == 0 and odd):
        return None
    if x & 1 != odd:
        x = _P - x
    return x, y, 1, x * y % _P


def _add(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int]
) -> tuple[int, int, int, int]:
    """The sum of two points; complete, so that it doubles as well (RFC 8032, section 5.1.4)."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    result = _NEUTRAL
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _equal(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return (one[0] * other[2] - other[0] * one[2]) % _P == 0 and (
        one[1] * other[2] - other[1] * one[2]
    ) % _P == 0


def _is_small(point: tuple[int, int, int, int]) -> bool:
    return _equal(_times(8, point), _NEUTRAL)


_BASE_Y = 4 * pow(5, _P - 2, _P) % _P
_BASE = _decode(_BASE_Y.to_bytes(32, "little")) or _NEUTRAL
