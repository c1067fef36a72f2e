"""The opset of an ONNX file, without the onnx package, which what runs does not need."""

from __future__ import annotations

_OPSET_IMPORT, _DOMAIN, _VERSION = 8, 1, 2
"""Field numbers. Source: onnx.proto, ModelProto.opset_import, OperatorSetIdProto"""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}

Field = tuple[int, int, bytes]
"""(number, value where it is a varint, bytes where it has a length that an opset entry can have)"""
_LONGEST_ENTRY = 256


def opset_of(model: bytes) -> int | None:
    """Return the version of the default operator set that `model` imports; None where it is no ONNX file."""
    try:
        for number, _, body in _fields(model):
            if number == _OPSET_IMPORT:
                entry = {key: (value, text) for key, value, text in _fields(body)}
                if entry.get(_DOMAIN, (0, b""))[1] in (b"", b"ai.onnx"):
                    return entry[_VERSION][0]
    except (IndexError, ValueError, KeyError):
        return None
    return None


def _fields(message: bytes) -> list[Field]:
    fields: list[Field] = []
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            fields.append((number, value, b""))
            continue
        if wire == _LENGTH:
            length, at = _varint(message, at)
        elif wire in _FIXED_BYTES:
            length = _FIXED_BYTES[wire]
        else:
            raise ValueError("no protobuf message")
        if at + length > len(message):
            raise ValueError("the message ends early")
        fields.append((number, 0, message[at : at + length] if length < _LONGEST_ENTRY else b""))
        at += length
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("no varint")
