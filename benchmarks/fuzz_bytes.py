"""What the makers of hostile files have in common: numbers that break arithmetic, and random changes of bytes."""

from __future__ import annotations

import random

HOSTILE_NUMBERS = (
    *(0, 1, 2, 3, 7, 255, 256, 65_535, 65_536, 10**6, 10**9, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40),
    *(2**60, 2**61 + 1, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1),
)


def mutated(rng: random.Random, data: bytes, *, head: int | None = None) -> bytes:
    """A few random changes, of which most are among the first ``head`` bytes if that is given."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not made:
            break
        end = min(len(made), head) if head is not None and rng.random() < 0.8 else len(made)
        at, n = rng.randrange(end), rng.choice((1, 2, 4, 8, 64, 1000))
        way = rng.randrange(7)
        if way == 0:
            made[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            size = rng.choice((2, 4, 8))
            number = rng.choice(HOSTILE_NUMBERS) & ((1 << 8 * size) - 1)
            made[at : at + size] = number.to_bytes(size, rng.choice(("little", "big")))
        elif way == 2:
            made[at : at + n] = rng.randbytes(n)
        elif way == 3:
            del made[at : at + n]
        elif way == 4:
            made[at:at] = made[at : at + n] * rng.choice((1, 3, 50))
        elif way == 5:
            made[at : at + n] = bytes([rng.choice((0, 255, 0x7F, 0x80))]) * n
        elif rng.random() < 0.3:
            del made[at:]
    return bytes(made)
