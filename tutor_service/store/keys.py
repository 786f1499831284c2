"""Name questions so that equal ones share a key. Knows token ids and an identity string, and not what they mean."""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Sequence

KEY_BYTES = 32
"""Length of a key: 256 bits, so that two questions never meet by chance."""

_COUNT = struct.Struct("<Q")


def advice_key(identity: str, prompt_token_ids: Sequence[int], label_token_ids: Sequence[int]) -> bytes:
    """Return the store's key for one question to one tutor.

    The encoding that is hashed puts each part's length before it, so that no two different questions share it; it
    depends neither on the process nor on the machine.

    Args:
        identity: Everything of the tutor that can change an answer: model, revision, precision, decoding, and so on.
        prompt_token_ids: The whole prompt, rules and state and template included, as the model reads it.
        label_token_ids: The token of each legal action, in order.

    Returns:
        ``KEY_BYTES`` bytes: BLAKE2b over the encoding.

    Raises:
        OverflowError: A token id does not fit 64 bits.
    """
    name = identity.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(_COUNT.pack(len(name)) + name, digest_size=KEY_BYTES)
    for ids in (prompt_token_ids, label_token_ids):
        packed = array("q", tuple(ids))  # of bytes, too, each is a number
        if sys.byteorder == "big":
            packed.byteswap()
        digest.update(_COUNT.pack(len(ids)) + packed.tobytes())
    return digest.digest()
