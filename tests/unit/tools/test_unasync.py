"""The synchronous client is the asynchronous one without `await`."""

from pathlib import Path

from tools.unasync import CLIENT, SYNC, modules


def test_the_committed_modules_are_up_to_date() -> None:
    assert SYNC.stale() == [], "run `make unasync` and commit the modules"


def test_the_generated_client_mentions_nothing_asynchronous() -> None:
    for text in modules().values():
        code = text.split("\n", 1)[1]
        assert "async " not in code
        assert "await" not in code
        assert "Async" not in code


def test_drift_is_found_and_mended(tmp_path: Path) -> None:
    SYNC.write(tmp_path)
    assert SYNC.stale(tmp_path) == []
    changed, removed = tmp_path / "client.py", tmp_path / "gaze.py"
    changed.write_text(changed.read_text() + "\n")
    removed.unlink()
    (tmp_path / "extra.py").touch()
    assert SYNC.stale(tmp_path) == ["client.py", "extra.py", "gaze.py"]
    SYNC.write(tmp_path)
    assert SYNC.stale(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (CLIENT / "_async").glob("*.py")}
