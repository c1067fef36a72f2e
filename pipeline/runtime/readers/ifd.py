"""Validates the chain of directories of a TIFF before it is read.

Otherwise a truncated pyramid whose largest level was written last would pass for a small complete scan.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from pipeline.runtime.readers.refusals import Refusal, refuse

MAX_DIRECTORIES = 256
ReadAt = Callable[[int, int], bytes]
"""(offset, length) → bytes, fewer at the end of the file"""


def check_directories(read_at: ReadAt) -> None:
    """Check that every directory of the chain lies inside the file.

    Raises: InputError `truncated`, `damaged_header` (a cycle in the chain), `unsupported_format`.
    """
    order = "<" if read_at(0, 2) == b"II" else ">"
    big = _number(read_at, 2, order + "H") == 43
    pointer, count, entry_bytes = (order + "Q", order + "Q", 20) if big else (order + "I", order + "H", 12)
    offset = _number(read_at, 8 if big else 4, pointer)
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise refuse(Refusal.DAMAGED_HEADER)
        seen.add(offset)
        if len(seen) > MAX_DIRECTORIES:
            raise refuse(
                Refusal.UNSUPPORTED_FORMAT,
                f"The TIFF holds more than {MAX_DIRECTORIES} pictures: export one scan per file.",
            )
        entries = _number(read_at, offset, count)
        offset = _number(read_at, offset + struct.calcsize(count) + entries * entry_bytes, pointer)
    if not seen:
        raise refuse(Refusal.DAMAGED_HEADER)


def _number(read_at: ReadAt, offset: int, layout: str) -> int:
    length = struct.calcsize(layout)
    found = read_at(offset, length) if offset < 2**62 else b""
    if len(found) < length:
        raise refuse(Refusal.TRUNCATED)
    value: int = struct.unpack(layout, found)[0]
    return value
