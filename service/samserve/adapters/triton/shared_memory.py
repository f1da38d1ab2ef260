"""POSIX shared memory: one segment that both the gateway and Triton map."""

import contextlib
import fcntl
import logging
import mmap
import os
import secrets
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_log = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")
"""Folder of the files behind `shm_open` on Linux."""

PREFIX = "samserve-"


class SharedMemoryUnavailable(OSError):
    """There is no shared memory, or not enough of it."""


class SharedMemory:
    """A segment with a unique name, reserved in full, so that writing to it cannot fail.

    It is there until `close`, and goes with the gateway: a segment whose gateway died without closing it is removed by
    the next gateway that starts. The memory itself lives as long as an array over it.

    Attributes:
        name: of the segment; `/name` is its POSIX key.
        nbytes: its size.
    """

    def __init__(self, nbytes: int) -> None:
        """Create a segment.

        Raises:
            SharedMemoryUnavailable: `/dev/shm` is missing or has less than `nbytes` left.
        """
        remove_leftovers()
        self.name = PREFIX + secrets.token_hex(16)
        self.nbytes = nbytes
        self._path = FOLDER / self.name
        try:
            self._file = _create_locked(self._path)
        except OSError as error:
            raise SharedMemoryUnavailable(f"cannot use {FOLDER}: {error}") from error
        try:
            # Reserved now, because touching memory that is not available later would kill the process with SIGBUS.
            os.posix_fallocate(self._file, 0, nbytes)
            self._map = mmap.mmap(self._file, nbytes)
        except OSError as error:
            self.close()
            raise SharedMemoryUnavailable(
                f"{FOLDER} has less than {nbytes >> 20} MiB free ({error.strerror}); enlarge it or lower "
                "SAMSERVE_MEMORY_CACHE_BYTES"
            ) from error
        self._address: int = np.frombuffer(self._map, np.uint8, 1).ctypes.data
        self._read_only = memoryview(self._map).toreadonly()

    def array(
        self, offset: int, shape: tuple[int, ...], dtype: npt.DTypeLike, *, read_only: bool = False
    ) -> npt.NDArray[Any]:
        """An array over part of the segment. All its views keep this array alive."""
        buffer = self._read_only if read_only else self._map
        flat = np.frombuffer(buffer, dtype, int(np.prod(shape)), offset)
        return flat.reshape(shape)

    def offset_of(self, array: npt.NDArray[Any]) -> int | None:
        """Offset of the array's data in the segment, or None if it does not lie there contiguously."""
        offset = array.ctypes.data - self._address
        if offset >= 0 and offset + array.nbytes <= self.nbytes and array.flags.c_contiguous:
            return int(offset)
        return None

    def close(self) -> None:
        """Remove the name. Arrays stay readable, and so does Triton's mapping."""
        self._path.unlink(missing_ok=True)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def when_unused(array: npt.NDArray[Any], callback: Callable[[], object]) -> None:
    """Call back when the array and all its views are released, in the thread that releases the last one."""
    owner = array if array.base is None or not isinstance(array.base, np.ndarray) else array.base
    weakref.finalize(owner, callback).atexit = False


def is_gone(name: str) -> bool:
    """Return True if the name is that of a segment that no longer exists."""
    return name.startswith(PREFIX) and not (FOLDER / name).exists()


def _create_locked(path: Path) -> int:
    """A new file, locked as long as it is open."""
    while True:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        # Another gateway's clean-up may have removed the file in between.
        if os.fstat(file).st_nlink:
            return file
        os.close(file)


def remove_leftovers() -> None:
    """Remove the segments of gateways that have ended. Their file locks were released, in whatever container they
    ran."""
    for path in FOLDER.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                _log.info("removed %s, left by a gateway that was killed", path)
            finally:
                os.close(file)
