"""Compute threads run at a lower priority than the event loop."""

import os
import sys

import pytest

from samserve.usecases.load.thread_pools import available_cores, compute_threads


@pytest.mark.skipif(sys.platform != "linux", reason="niceness is a thread's own on Linux only")
def test_threads_that_compute_yield_to_the_one_that_started_them() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with compute_threads(2, "test") as threads:
        niceness = {threads.submit(os.getpriority, os.PRIO_PROCESS, 0).result() for _ in range(8)}
    assert min(niceness) > before
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_all_cores_count_and_threads_keep_the_priority_of_the_process(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert available_cores() == (os.cpu_count() or 1)
    with compute_threads(1, "test") as threads:
        niceness = threads.submit(os.getpriority, os.PRIO_PROCESS, 0).result()
    assert niceness == os.getpriority(os.PRIO_PROCESS, 0)
