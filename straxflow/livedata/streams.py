"""Decompress live-data files piece by piece, to their very end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

PIECE = 1 << 20
"""Bytes read at a time; lz4 gives out at most eight times as much at a time."""


class BadStream(Exception):
    """A compressed stream is broken, cut short, or followed by something else."""


def iter_plain(path: Path, compressor: str) -> Iterator[bytes]:
    """Yield the decompressed content of `path` in pieces of a few MB.

    lz4 and zstd are streamed, so memory does not grow with the file; a blosc file is one indivisible
    block and is decompressed whole. An empty file yields nothing: redax makes those for silent threads.

    Raises BadStream if the stream is broken, ends early or has something behind it, and OSError.
    """
    return _READERS[compressor](path)


def _lz4(path: Path) -> Iterator[bytes]:
    import lz4.frame

    with path.open("rb") as file:
        data = file.read(PIECE)
        if not data:
            return
        stream = lz4.frame.LZ4FrameDecompressor()
        while True:
            try:
                plain = stream.decompress(data, max_length=8 * PIECE)
            except RuntimeError as error:
                raise BadStream(f"broken lz4 stream ({error})") from None
            if plain:
                yield plain
            if stream.eof:
                break
            data = file.read(PIECE) if stream.needs_input else b""
            if stream.needs_input and not data:
                raise BadStream("lz4 stream ends early")
        _nothing_behind(len(stream.unused_data or b"") + len(file.read(PIECE)))


def _zstd(path: Path) -> Iterator[bytes]:
    import zstandard

    with path.open("rb") as file:
        data = file.read(PIECE // 4)
        if not data:
            return
        stream = zstandard.ZstdDecompressor().decompressobj()
        while not stream.eof:
            if not data:
                raise BadStream("zstd stream ends early")
            try:
                plain = stream.decompress(data)
            except zstandard.ZstdError as error:
                raise BadStream(f"broken zstd stream ({error})") from None
            if plain:
                yield plain
            if not stream.eof:
                data = file.read(PIECE // 4)
        _nothing_behind(len(stream.unused_data) + len(file.read(PIECE)))


def _blosc(path: Path) -> Iterator[bytes]:
    import blosc
    from blosc.blosc_extension import error as BloscError

    data = path.read_bytes()
    if not data:
        return
    # c-blosc trusts its header and reads past a short buffer, so look at the sizes first:
    # bytes 4-8 plain size, 8-12 block size, 12-16 compressed size
    if len(data) < 16:
        raise BadStream(f"blosc block ends early ({len(data)} bytes)")
    claimed = int.from_bytes(data[12:16], "little")
    if claimed > len(data):
        raise BadStream(f"blosc block ends early ({len(data)} of {claimed} bytes)")
    _nothing_behind(len(data) - claimed)
    try:
        plain = blosc.decompress(data)
    except (BloscError, MemoryError) as error:
        raise BadStream(f"broken blosc block ({error})") from None
    if plain:
        yield plain


def _nothing_behind(n_bytes: int) -> None:
    if n_bytes:
        raise BadStream("something follows the end of the compressed stream")


_READERS: dict[str, Callable[[Path], Iterator[bytes]]] = {"lz4": _lz4, "zstd": _zstd, "blosc": _blosc}

COMPRESSORS = tuple(_READERS)
"""The names that `daq_config.compressor` may have."""
