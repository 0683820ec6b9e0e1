"""The protobuf wire format, as much of it as execution traces need (protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

_VARINT, _FIXED64, _LENGTH = 0, 1, 2


def varint(value: int) -> bytes:
    """A whole number in groups of seven bits, least first; negative ones as 64-bit two's complement."""
    value &= 0xFFFFFFFFFFFFFFFF
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def whole(number: int, value: int) -> bytes:
    """Field of an int32, int64, uint32, uint64, bool or enum."""
    return varint(number << 3 | _VARINT) + varint(value)


def double(number: int, value: float) -> bytes:
    """Field of a double."""
    return varint(number << 3 | _FIXED64) + struct.pack("<d", value)


def nested(number: int, value: bytes) -> bytes:
    """Field of bytes or of a message."""
    return varint(number << 3 | _LENGTH) + varint(len(value)) + value


def text(number: int, value: str) -> bytes:
    """Field of a string; what UTF-8 cannot hold becomes `?`."""
    return nested(number, value.encode("utf-8", "replace"))


def packed(number: int, values: Iterable[int]) -> bytes:
    """Repeated field of whole numbers, packed; nothing where there are none."""
    body = b"".join(map(varint, values))
    return nested(number, body) if body else b""


def delimited(message: bytes) -> bytes:
    """A message in a stream of messages: its length, then itself."""
    return varint(len(message)) + message
