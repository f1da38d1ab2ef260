"""A short run of the load test against a gateway."""

import json
import subprocess
import sys
from pathlib import Path


def test_a_run_against_a_gateway_writes_its_report_and_meets_no_fault(tmp_path: Path) -> None:
    flags = ["--seconds", "3", "--loads", "3", "--users", "2", "--pictures", "3", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.load", *flags], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "holds: nothing is INTERNAL or UNKNOWN" in done.stdout
    assert (tmp_path / "load.png").stat().st_size
    assert "| 3 × |" in (tmp_path / "report.md").read_text()
    for record in (tmp_path / "closed-loop-of-2.json", tmp_path / "3-×.json"):
        calls = json.loads(record.read_text())["calls"]
        assert {"warm", "gaze"} <= {kind for kind, *_, code in calls if code == "OK"}
