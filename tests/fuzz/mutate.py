"""Pieces that readers stumble over, for both fuzzers."""

from __future__ import annotations

NASTY: tuple[bytes, ...] = (
    b"", b"0", b"-1", b"1e309", b"-1e309", b"NaN", b"nan", b"inf", b"Infinity", b"1e-320", b"1_000", b"0x10",
    b"true", b"null", b"9" * 30, b"9" * 5_000, b"1" + b"0" * 18, b"4294967296", b"0.5", b'""', b"''", b"[]", b"{}",
    b"[[", b"}}", b'{"a":', b"[" * 3_000, b'{"a":' * 3_000, b"(" * 3_000, b"\x00", b"\xff\xfe", b"\xef\xbb\xbf",
    b"\x1b[2J", b"\r\n", b"\r", b"\n\n", b"\t", b"\xc2\x9b31m", b"\xe2\x80\xae", b"\xed\xa0\x80",
    b"../../../etc/passwd", b"/dev/zero", b"/dev/full", b"~root", b"$(id)", b"`id`", b"; id", b"&& id",
    b"=cmd|' /C calc'!A0", b"@SUM(1)", b"<script>alert(1)</script>", b"[bold]", b"[/]", b"!!python/object:os.system",
    b"&a [*a,*a]", b"*a", b"<<: *a", b"%s%n", b"{0}", b"a" * 5_000, b"," * 2_000, b'"' * 999, b"\\", b"\\u0000",
    b"\\ud800", b"#", b"=", b":", b"- " * 999, b"--" * 99, b"2024-05-10T00:00:00Z", b"9999-12-31T23:59:59Z",
    b"0000-00-00", b"1e18", b"le=", b"+Inf",
)  # fmt: skip
"""Numbers out of range, deep nesting, bytes that are no text, terminal sequences, paths, code of shells and pages."""


def spliced(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """`seed` with pieces replaced: place and length of each are taken modulo what is there."""
    data = seed
    for place, length, piece in edits:
        at = place % (len(data) + 1)
        data = data[:at] + piece + data[at + length % (len(data) - at + 1) :]
    return data
