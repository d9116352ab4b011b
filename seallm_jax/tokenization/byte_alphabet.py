"""GPT-2's byte alphabet: a printable character for each byte, in which byte-level vocabularies are written."""

from __future__ import annotations

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # they stand for themselves
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
ALPHABET = "".join(
    chr(byte) if byte in _PRINTABLE else chr(0x100 + _OTHERS.index(byte)) for byte in range(256)
)  # character i stands for byte i
_BYTE_OF = {character: byte for byte, character in enumerate(ALPHABET)}


def to_alphabet(data: bytes) -> str:
    """Bytes as a piece."""
    return data.decode("latin-1").translate(_TO_ALPHABET)


def from_alphabet(piece: str) -> bytes:
    """The bytes of a piece. Raises KeyError for a character that is not of the alphabet."""
    return bytes([_BYTE_OF[character] for character in piece])


_TO_ALPHABET = {byte: character for byte, character in enumerate(ALPHABET)}
# Bytes that UTF-8 never uses; a vocabulary may lack them.
UNUSED_BYTES = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})
