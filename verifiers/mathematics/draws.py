"""Secret randomness for comparisons: hidden from the policy, the same for the same two texts.

Identity testing at points or primes that everybody knows is a target: an answer `x + P·y`, with P
the product of the known primes, would be equal to `x` in every field. So points and primes are
drawn by hash from the run's salt.
"""

import functools
import hashlib
import math
import os

SALT_VARIABLE = "RLVR_SALT"
"""Environment variable that fixes the salt, for runs that must repeat point by point."""
PRIME_BITS = (61, 89)
"""Bits of the two primes: two different values agree in both fields with chance 2^-150."""
_WITNESSES = 24
"""Rounds of Miller-Rabin: a composite passes all with chance below 2^-48."""
_SMALL_PRIMES = tuple(n for n in range(5, 1000) if all(n % d for d in range(2, int(n**0.5) + 1)))
_PRIMORIAL = math.prod(_SMALL_PRIMES)


@functools.cache
def _process_salt() -> bytes:
    return os.urandom(16)


def run_salt() -> bytes:
    """Return the salt of this run: the environment variable's, else one drawn once per process."""
    named = os.environ.get(SALT_VARIABLE)
    return named.encode() if named else _process_salt()


class Draw:
    """The random numbers of one comparison; the same when its two texts change places.

    Example:
        >>> Draw("a", "b", b"salt").integer("x", 10, 20) == Draw("b", "a", b"salt").integer(
        ...     "x", 10, 20
        ... )
        True
    """

    def __init__(self, truth: str, answer: str, salt: bytes | None = None) -> None:
        """Name the texts compared; nothing is computed yet.

        Args:
            truth: The truth's text.
            answer: The answer's text.
            salt: The secret; by default the run's.
        """
        self._texts = (truth, answer) if truth <= answer else (answer, truth)
        self._salt = run_salt() if salt is None else salt
        self._seed = b""

    @property
    def primes(self) -> tuple[int, int]:
        """Two primes p, of which (p − 1)/2 is prime too, drawn from the salt alone."""
        return _primes(self._salt)

    def bits(self, label: str) -> int:
        """Return 128 random bits that belong to a label."""
        if not self._seed:
            self._seed = _hash(self._salt, "\0".join(self._texts))
        return int.from_bytes(_hash(self._seed, label)[:16], "big")

    def integer(self, label: str, low: int, high: int) -> int:
        """Return a random integer, `low` and `high` included."""
        return low + self.bits(label) % (high - low + 1)

    def real(self, label: str, low: float, high: float) -> float:
        """Return a random number of 53 bits between two bounds."""
        return low + (high - low) * (self.bits(label) >> 75) / (1 << 53)


def _hash(key: bytes, text: str) -> bytes:
    # a text of the policy may hold lone surrogates
    return hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), key=key[:64], digest_size=32
    ).digest()


@functools.lru_cache(maxsize=16)
def _primes(salt: bytes) -> tuple[int, int]:
    """Draw safe primes p = 2q + 1, so that no exponent is by its smoothness a multiple of p − 1."""
    first, second = (_safe_prime(salt, bits) for bits in PRIME_BITS)
    return first, second


def _safe_prime(salt: bytes, bits: int) -> int:
    start = int.from_bytes(_hash(salt, f"prime {bits}"), "big") % (1 << (bits - 3))
    half = (1 << (bits - 2)) + start
    half += 5 - half % 6  # a safe prime above 7 is 11 modulo 12
    while not _is_safe(half):
        half += 6
    return 2 * half + 1


def _is_safe(half: int) -> bool:
    if math.gcd(half * (2 * half + 1), _PRIMORIAL) != 1:
        return False
    return _is_prime(half) and _is_prime(2 * half + 1)


def _is_prime(number: int) -> bool:
    """Test by Miller and Rabin; 2 first, which nearly every composite fails."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for witness in (2, *_SMALL_PRIMES[: _WITNESSES - 1]):
        power = pow(witness, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True
