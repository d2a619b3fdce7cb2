"""The random numbers of a run, by name, as common/base/rng.h defines them: Philox4x32-10 in numpy.

A number is named (seed, sample, segment, use, element); who asks for the same name gets the same bits as vader:

    key = Key(seed, train(i), segment, use(LATENTS))
    noise = normal(key, count)                  # float32, elements 0 .. count-1
    place = Stream(key).below(n)                # choices one after the other
"""
import numpy as np

IMAGE_NOISE, LATENTS, STEP_NOISE, WINDOW, FRAMES, MASKS, DROPOUT, INIT, ORDER = range(9)
LOW = np.uint64(0xFFFFFFFF)


def philox(counter, key):
    """Blocks (n, 4) for counters (n, 4) under one key (2), all uint32."""
    a, b, c, d = (np.asarray(counter, np.uint32)[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = int(key[0]), int(key[1])
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (q >> np.uint64(32)) ^ b ^ np.uint64(k0), q & LOW, (p >> np.uint64(32)) ^ d ^ np.uint64(k1), p & LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([a, b, c, d], axis=1).astype(np.uint32)


def words(x):
    """A 64-bit number as (low, high)."""
    return x & 0xFFFFFFFF, x >> 32


def use(kind, step=0, branch=0, module=0, draw=0):
    return kind << 28 | step << 18 | branch << 16 | module << 4 | draw


def train(n):
    """Sample number n of training."""
    return n


class Key:
    """A name made ready: the key and the upper half of the counter of its blocks."""

    def __init__(self, seed, sample=0, segment=0, use=0):
        name = philox([[*words(sample), segment, use]], words(seed))[0]
        self.key, self.high = name[:2], name[2:]

    def bits(self, count, first=0):
        """uint32 bits of elements first .. first+count-1."""
        begin, end = first // 4, (first + count + 3) // 4
        counter = np.empty((end - begin, 4), np.uint32)
        block = np.arange(begin, end, dtype=np.uint64)
        counter[:, 0], counter[:, 1], counter[:, 2:] = block & LOW, block >> np.uint64(32), self.high
        return philox(counter, self.key).reshape(-1)[first - 4 * begin:][:count]


def uniform(key, count, first=0):
    """float32 in (0, 1): odd multiples of 2^-24."""
    return ((key.bits(count, first) >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0 ** -23)


def normal(key, count):
    """float32 by Box-Muller in double: elements 2i and 2i+1 are radius times cosine and sine."""
    u = (key.bits(count + count % 2).astype(np.float64) + 0.5) * 2.0 ** -32
    radius, angle = np.sqrt(-2 * np.log(u[0::2])), 2 * np.pi * u[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count].astype(np.float32)


class Stream:
    """Choices one after the other from one key."""

    def __init__(self, key):
        self.key, self.element = key, 0

    def uniform(self):
        self.element += 1
        return float(uniform(self.key, 1, self.element - 1)[0])

    def below(self, n):
        """An integer in 0 .. n-1, each with the same probability (Lemire 2019)."""
        while True:
            m = int(self.key.bits(1, self.element)[0]) * n
            self.element += 1
            if (m & 0xFFFFFFFF) >= (1 << 32) % n:
                return m >> 32

    def shuffle(self, n):
        order = [0] * n
        for i in range(n):
            j = self.below(i + 1)
            order[i] = order[j]
            order[j] = i
        return order
