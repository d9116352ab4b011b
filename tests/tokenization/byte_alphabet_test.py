"""The byte alphabet against that of `tokenizers`."""

import hypothesis
import hypothesis.strategies as st
from tokenizers import pre_tokenizers

from seallm_jax.tokenization.byte_alphabet import ALPHABET, UNUSED_BYTES, from_alphabet, to_alphabet


def test_it_is_the_alphabet_of_tokenizers():
    assert set(ALPHABET) == set(pre_tokenizers.ByteLevel.alphabet()) and len(set(ALPHABET)) == 256
    step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for point in range(256):
        [(piece, _)] = step.pre_tokenize_str(chr(point))
        assert piece == to_alphabet(chr(point).encode())


@hypothesis.given(st.binary())
def test_bytes_survive(data):
    assert from_alphabet(to_alphabet(data)) == data
    assert len(to_alphabet(data)) == len(data)


def test_unused_bytes_are_those_that_no_character_has():
    used = {byte for point in range(0x110000) if not 0xD800 <= point < 0xE000 for byte in chr(point).encode()}
    assert used | UNUSED_BYTES == set(range(256)) and not used & UNUSED_BYTES
