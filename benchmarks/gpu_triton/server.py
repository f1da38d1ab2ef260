"""A Triton process on a model repository, with or without a GPU."""

import ctypes
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gpu_triton.carried import Unpacked
from stack.triton_server import TritonInstallation, has_interpreter_library, provide

STOP_SECONDS = 15.0
LOG_CHARACTERS = 3000

# Hides GPUs, so that the run is the same on any machine.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


class TritonFailed(Exception):
    """Triton did not start; the text ends with its log."""


@contextmanager
def triton(repository: Path, log: Path, device: str, carried: Unpacked | None, seconds: float) -> Iterator[str]:
    """Start Triton, yield its gRPC address once its models are ready, and stop it.

    Args:
        carried: where to take Triton from; by default what `make triton` uses.
        seconds: the longest that the start may take.

    Raises:
        TritonFailed: it ended, or was not ready in time.
    """
    installation = provide() if carried is None else TritonInstallation(carried.triton)
    port = _free_port()
    # GPU metrics need NVIDIA's DCGM service and are not used here. Auto-completing the configuration, which is
    # complete, would import the models a second time.
    options = ["--allow-gpu-metrics=false", "--disable-auto-complete-config"]
    command = [*installation.command(repository, port, _free_port()), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment(installation, device, carried), stdout=output, stderr=output
        )
    try:
        _await_ready(process, port, log, time.monotonic() + seconds)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment(installation: TritonInstallation, device: str, carried: Unpacked | None) -> dict[str, str]:
    """Environment in which Triton's Python backend finds the interpreter's library and the GPU's driver.

    The backend embeds an isolated interpreter: it ignores `PYTHONPATH` and `PYTHONHOME`, and takes its standard library
    from beside the first `python3` in `PATH`.
    """
    variables = installation.environment()
    libraries = [variables["LD_LIBRARY_PATH"]]
    if carried is not None and not has_interpreter_library():
        libraries.append(str(carried.python / "lib"))
        variables["PATH"] = os.pathsep.join((str(carried.python / "bin"), variables["PATH"]))
    if device == "cuda":
        libraries += _driver_link(installation)
    else:
        variables |= _NO_GPU
    variables["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    return variables


def log_tail(log: Path) -> str:
    """Return the end of a log, or an empty text if there is no log."""
    if not log.is_file():
        return ""
    # Triton pads its tables to the longest cell.
    return re.sub(r" {3,}|-{4,}", " ", log.read_text(errors="replace"))[-LOG_CHARACTERS:]


def _driver_link(installation: TritonInstallation) -> list[str]:
    """Create a folder with `libcuda.so` if the machine has the driver only under its versioned name."""
    try:
        ctypes.CDLL("libcuda.so")
    except OSError:
        pass
    else:
        return []
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise TritonFailed(f"the GPU's driver cannot be loaded: {error}") from error
    mapped = re.search(r"/\S*libcuda\.so\S*", Path("/proc/self/maps").read_text())
    if mapped is None:
        raise TritonFailed("the GPU's driver is loaded from no file")
    folder = installation.home / "driver"
    folder.mkdir(exist_ok=True)
    link = folder / "libcuda.so"
    link.unlink(missing_ok=True)
    link.symlink_to(mapped[0])
    return [str(folder)]


def _await_ready(process: "subprocess.Popen[bytes]", port: int, log: Path, deadline: float) -> None:
    """Wait until Triton listens, which it does once all models are loaded and warmed up, or has ended."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None:
                raise TritonFailed(f"Triton ended with exit code {process.returncode}:\n{log_tail(log)}") from None
            if time.monotonic() > deadline:
                raise TritonFailed(f"Triton was not ready in time:\n{log_tail(log)}") from None
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
