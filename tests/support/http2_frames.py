"""HTTP/2 frame by frame, for what no gRPC client sends."""

import struct
from collections import defaultdict

from hpack import Decoder, Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, SettingsFrame

_FRAME_HEADER_BYTES = 9

PREFIX_BYTES = 5
"""Of each message in gRPC's framing."""


def preface() -> bytes:
    """The opening of a connection, with no setting changed."""
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(SettingsFrame(0).serialize())


def call_headers(path: str, stream: int, *metadata: tuple[bytes, bytes]) -> bytes:
    """The start of a gRPC call. No field enters the compression state, so each call stands alone."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"test"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *metadata,
    ]
    sensitive = True
    block = Encoder().encode([(name, value, sensitive) for name, value in fields], huffman=False)
    return bytes(HeadersFrame(stream, block, flags=["END_HEADERS"]).serialize())


def last_message(stream: int, message: bytes) -> bytes:
    """A message of a call, after which the client sends no more."""
    prefixed = struct.pack(">BI", 0, len(message)) + message
    return bytes(DataFrame(stream, prefixed, flags=["END_STREAM"]).serialize())


class Responses:
    """What a server has sent on one connection.

    Attributes:
        headers: by stream, leading and trailing ones together.
        data: by stream, gRPC's message prefixes included.
        is_leaving: whether the server has announced that it takes no new streams.
    """

    def __init__(self) -> None:
        self.headers: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
        self.data: defaultdict[int, bytes] = defaultdict(bytes)
        self.is_leaving = False
        self._decoder = Decoder()
        self._unparsed = b""

    def feed(self, received: bytes) -> None:
        """Take in what came next."""
        self._unparsed += received
        while len(self._unparsed) >= _FRAME_HEADER_BYTES:
            frame, length = Frame.parse_frame_header(memoryview(self._unparsed[:_FRAME_HEADER_BYTES]))
            end = _FRAME_HEADER_BYTES + length
            if len(self._unparsed) < end:
                return
            frame.parse_body(memoryview(self._unparsed[_FRAME_HEADER_BYTES:end]))
            self._unparsed = self._unparsed[end:]
            if isinstance(frame, HeadersFrame):
                self.headers[frame.stream_id].update(self._decoder.decode(frame.data, raw=True))
            elif isinstance(frame, DataFrame):
                self.data[frame.stream_id] += frame.data
            elif isinstance(frame, GoAwayFrame):
                self.is_leaving = True

    def status(self, stream: int) -> int | None:
        """The gRPC status of a call that has ended."""
        code = self.headers[stream].get(b"grpc-status")
        return None if code is None else int(code)
