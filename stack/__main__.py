"""`python -m stack`: run all of samserve on this machine until Ctrl-C or SIGTERM."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from samserve.gateway.child_process import ChildFailed
from stack.ports import Ports, PortTaken, address
from stack.stack import ProgramMissing, Stack
from stack.triton_server import TritonMissing

_LOOK_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack and return the exit code: 0 if stopped on request, 1 if a component failed, 2 if it cannot be
    started."""
    ports = _parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="samserve-stack-") as folder:
        try:
            print(f"logs in {folder}", flush=True)
            with Stack(Path(folder), ports, report=lambda line: print(line, flush=True)) as stack:
                print(_addresses(ports), flush=True)
                while True:
                    time.sleep(_LOOK_SECONDS)
                    stack.check()
        except KeyboardInterrupt:
            print("stopped", flush=True)
            return 0
        except ChildFailed as failed:
            print(f"stack: {failed}", file=sys.stderr)
            return 1
        except (ProgramMissing, TritonMissing, PortTaken) as error:
            print(f"stack: {error}", file=sys.stderr)
            return 2


def _parse(arguments: Sequence[str] | None) -> Ports:
    parser = argparse.ArgumentParser(
        prog="python -m stack",
        description="Redis, Triton, gateways, Envoy and Prometheus on loopback. Gateways take SAMSERVE_... variables.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for field in fields(Ports):
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, tuple):
            default = ",".join(map(str, field.default))
            parser.add_argument(flag, type=port_list, metavar="PORT,...", default=default, help="ports")
        else:
            parser.add_argument(flag, type=int, metavar="PORT", default=field.default, help="port")
    try:
        return Ports(**vars(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))


def port_list(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _addresses(ports: Ports) -> str:
    gateways = ", ".join(map(address, ports.gateways))
    return (
        f"\nsamserve    {address(ports.envoy)}, through Envoy to the gateways {gateways}\n"
        f"            samserve segment photo.jpg --point 640,360 --server {address(ports.envoy)}\n"
        f"Prometheus  http://{address(ports.prometheus)}\n"
        f"Envoy       http://{address(ports.envoy_admin)}/clusters\n"
        "Ctrl-C stops it all."
    )


if __name__ == "__main__":
    sys.exit(main())
