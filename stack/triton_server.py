"""Run a real Triton on a machine without container or GPU: fetch it once, then start it on a model repository.

    python -m stack.triton_server [REPOSITORY] [--grpc-port N] [--metrics-port N]    runs it until Ctrl-C
    python -m stack.triton_server --provide                                          only fetches it

The binary, its libraries and its Python backend come from NVIDIA's wheel `nvidia-pytriton`. The wheel is unpacked
instead of installed, because it would pin old versions of the gateway's dependencies. It is unpacked to `.triton/` or
`SAMSERVE_TRITON_HOME`.
"""

import argparse
import ctypes
import os
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samserve.gateway.settings import default_model_repository
from stack.leftovers import VARIABLE, triton_memory_prefix
from stack.wheels import WheelMissing, download

WHEEL = "nvidia-pytriton==0.7.0"
WHEEL_SHA256 = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"
GRPC_PORT = 8001
METRICS_PORT = 8002

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_INTERPRETER_LIBRARY = f"libpython{_PYTHON}.so.1.0"


class TritonMissing(Exception):
    """Triton cannot be provided on this machine; the message says what to do."""


@dataclass(frozen=True, slots=True)
class TritonInstallation:
    """An unpacked Triton, and the current environment's interpreter for its Python backend."""

    home: Path

    def command(
        self, repository: Path, grpc_port: int, metrics_port: int, host: str = "127.0.0.1", run: str | None = None
    ) -> list[str]:
        """Command line of the server: gRPC and metrics on these ports, no HTTP, no model control by clients.

        Its shared memory bears the mark of a run (`stack.leftovers`), by default of the one this process belongs to.
        """
        memory = triton_memory_prefix(run or os.environ.get(VARIABLE))
        options = {
            "model-repository": str(repository),
            "backend-directory": str(self.home / "pytriton/tritonserver/backends"),
            "model-control-mode": "none",
            "allow-http": "false",
            "grpc-address": host,
            "grpc-port": str(grpc_port),
            "metrics-address": host,
            "metrics-port": str(metrics_port),
            "exit-timeout-secs": "5",
            "backend-config": f"python,shm-region-prefix-name={memory}",
        }
        return [
            str(self.home / "pytriton/tritonserver/bin/tritonserver"),
            *(f"--{name}={value}" for name, value in options.items()),
        ]

    def environment(self) -> dict[str, str]:
        """Environment of the server. The Python backend takes its packages from the first `python3` on PATH."""
        libraries = [str(self.home / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
        if os.environ.get("LD_LIBRARY_PATH"):  # some machines have the GPU's driver here
            libraries.append(os.environ["LD_LIBRARY_PATH"])
        return {
            **os.environ,
            "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", ""))),
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        }


def provide() -> TritonInstallation:
    """Fetch and unpack Triton unless that has been done.

    Raises:
        TritonMissing: it cannot be had; the text says why and what to do.
    """
    home = _home() / f"{WHEEL.replace('==', '-')}-python{_PYTHON}"
    if not home.is_dir():
        _unpack(home)
    _check_interpreter()
    return TritonInstallation(home)


def _home() -> Path:
    given = os.environ.get("SAMSERVE_TRITON_HOME")
    return Path(given) if given else Path(__file__).resolve().parents[1] / ".triton"


def _unpack(home: Path) -> None:
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=home.parent) as draft:
        folder = Path(draft)
        try:
            wheel = download(WHEEL, WHEEL_SHA256, folder)
        except WheelMissing as error:
            raise TritonMissing(
                f"{error} (Linux on x86-64 only), which holds Triton; see above. Where there is no "
                "network, unpack it elsewhere and set SAMSERVE_TRITON_HOME to the folder that this made there"
            ) from error
        unpacked = folder / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        server = unpacked / "pytriton/tritonserver"
        stub = server / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
        if not stub.is_file():
            raise TritonMissing(
                f"{WHEEL} has no Python backend for Python {_PYTHON}; use another: make PYTHON=python3.12"
            )
        installed = shutil.copy(stub, server / "backends/python")
        for program in (Path(installed), server / "bin/tritonserver"):
            program.chmod(0o755)
        try:
            unpacked.rename(home)
        except OSError:
            # Another process finished first.
            if not home.is_dir():
                raise


def has_interpreter_library() -> bool:
    """Return True if the dynamic loader finds the interpreter as a shared library, which the Python backend needs."""
    for candidate in (str(Path(sysconfig.get_config_var("LIBDIR")) / _INTERPRETER_LIBRARY), _INTERPRETER_LIBRARY):
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return True
    return False


def _check_interpreter() -> None:
    """Debian has the interpreter's shared library in a separate package; the wheel contains the one of Python 3.13."""
    if _PYTHON != "3.13" and not has_interpreter_library():
        raise TritonMissing(
            f"Triton's Python backend needs {_INTERPRETER_LIBRARY}; install it: apt-get install libpython{_PYTHON}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace this process with Triton, or only fetch it. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Triton Inference Server on a model repository, without a container.")
    parser.add_argument("repository", nargs="?", type=Path, default=default_model_repository())
    parser.add_argument("--grpc-port", type=int, default=GRPC_PORT)
    parser.add_argument("--metrics-port", type=int, default=METRICS_PORT)
    parser.add_argument("--provide", action="store_true", help="download Triton without starting it")
    options = parser.parse_args(arguments)
    try:
        installation = provide()
    except TritonMissing as error:
        print(f"triton: {error}", file=sys.stderr)
        return 2
    if options.provide:
        return 0
    command = installation.command(options.repository, options.grpc_port, options.metrics_port)
    print(
        f"Triton on {options.repository}: gRPC 127.0.0.1:{options.grpc_port}, "
        f"metrics http://127.0.0.1:{options.metrics_port}/metrics\n"
        f"the gateway on it: make serve FLAGS='--backend triton --triton 127.0.0.1:{options.grpc_port}'",
        flush=True,
    )
    os.execve(command[0], command, installation.environment())


if __name__ == "__main__":
    sys.exit(main())
