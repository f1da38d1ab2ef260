"""One gateway process of `samserve serve --processes N`, as `gateway/supervisor.py` starts it.

python -m samserve.gateway.worker FD    FD: a connection that gives the settings and is told how it goes
"""

import asyncio
import contextlib
import pickle
import sys
import traceback
from functools import partial
from multiprocessing.connection import Connection

from samserve.gateway.process import serve
from samserve.gateway.settings import Settings
from samserve.observability.logs import configure_logging


def main(file: int) -> int:
    """Serve until told to stop. Sends None once it serves, and the error that ends it; returns the exit code."""
    with Connection(file) as supervisor:
        settings: Settings = supervisor.recv()
        configure_logging(settings.log_format, settings.log_level)
        # Without a supervisor there is nobody to tell.
        with contextlib.suppress(BrokenPipeError):
            try:
                asyncio.run(serve(settings, partial(supervisor.send, None)))
            except Exception as error:
                supervisor.send(_portable(error))
                return 1
    return 0


def _portable(error: Exception) -> Exception:
    """The error as another process can have it, with its traceback as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class makes of pickling
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
