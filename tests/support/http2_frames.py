"""HTTP/2 by hand, for what no gRPC client sends."""

import struct

_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4


def preface() -> bytes:
    """What opens a connection, with no setting changed."""
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, b"")


def call_headers(path: str, stream: int, *metadata: tuple[bytes, bytes]) -> bytes:
    """What begins a gRPC call; every field is a literal (RFC 7541, 6.2.2)."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"test"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *metadata,
    ]
    literals = (b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)
    return _frame(_HEADERS, _END_HEADERS, stream, b"".join(literals))


def last_message(stream: int, message: bytes) -> bytes:
    """A message of a call, after which the client sends no more."""
    return _frame(_DATA, _END_STREAM, stream, struct.pack(">BI", 0, len(message)) + message)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
