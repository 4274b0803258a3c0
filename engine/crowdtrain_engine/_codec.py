"""Reading and writing big-endian fields; a reader never goes beyond its bytes and names where it stopped."""

from __future__ import annotations

import struct

from crowdtrain_engine._errors import ProgramError

__all__ = ["Reader", "Writer"]


class Writer:
    """Appends big-endian fields."""

    def __init__(self) -> None:
        self._out = bytearray()

    def u8(self, *values: int) -> None:
        self._out += bytes(values)

    def u16(self, *values: int) -> None:
        self._out += struct.pack(f">{len(values)}H", *values)

    def u32(self, *values: int) -> None:
        self._out += struct.pack(f">{len(values)}I", *values)

    def i32(self, value: int) -> None:
        self._out += struct.pack(">i", value)

    def raw(self, data: bytes) -> None:
        self._out += data

    def bytes(self) -> bytes:
        return bytes(self._out)


class Reader:
    """Takes big-endian fields from ``data``; every failure is a ProgramError about ``where``."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._where = where
        self._at = 0

    def error(self, why: str) -> ProgramError:
        return ProgramError(self._where, f"{why} (before byte {self._at})")

    @property
    def done(self) -> bool:
        return self._at == len(self._data)

    def raw(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise self.error(
                f"ends early: {size} more bytes are needed, {len(self._data) - self._at} are left"
            )
        self._at += size
        return self._data[self._at - size : self._at]

    def u8(self) -> int:
        return self.raw(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.raw(2), "big")

    def u32(self) -> int:
        return int.from_bytes(self.raw(4), "big")

    def i32(self) -> int:
        return int.from_bytes(self.raw(4), "big", signed=True)

    def count(self, most: int, what: str) -> int:
        """A byte that counts something, at most ``most``."""
        value = self.u8()
        if value > most:
            raise self.error(f"{what} is {value}, at most {most} is allowed")
        return value

    def end(self) -> None:
        if not self.done:
            raise self.error(f"{len(self._data) - self._at} bytes too many")
