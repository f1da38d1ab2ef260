"""Hooks of pytest: no process and no shared memory outlives a test run, also when the run is killed."""

import os
import time
from collections.abc import Generator
from contextlib import ExitStack

import pytest

from stack import leftovers

_END_SECONDS = 5.0
_RUN = pytest.StashKey[str]()
_WATCHER = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Mark all that this run starts; workers of xdist are part of it."""
    if hasattr(config, "workerinput"):
        return
    config.stash[_RUN] = run = leftovers.new_run()
    config.stash[_WATCHER] = ExitStack()
    config.stash[_WATCHER].enter_context(leftovers.ended_with_this_process(run, 0))
    os.environ[leftovers.VARIABLE] = run


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Fail a run that leaves something behind, and end that."""
    yield
    run = session.config.stash.get(_RUN, None)
    if run is None:
        return
    left = _left(run)
    leftovers.end(run)
    session.config.stash[_WATCHER].close()
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        writer = session.config.get_terminal_writer()
        writer.line()
        for each in left:
            writer.line(f"left behind: {each}", red=True)


def _left(run: str) -> list[str]:
    """What does not end within some seconds."""
    deadline = time.monotonic() + _END_SECONDS
    while True:
        # Python's own process ends with the one that it works for.
        found = [
            f"process {command}" for command in leftovers.processes(run).values() if "resource_tracker" not in command
        ]
        found += [str(path) for path in leftovers.shared_memory(run)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
