"""Seeds for every draw, derived from (seed, purpose, index) and nothing else."""

import hashlib


def derive(seed: int, purpose: str, index: int = 0) -> int:
    """Seed of one draw: the first 63 bits of SHA-256 over "seed/purpose/index".

    Independent of process, platform and the order of draws.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
