"""Hook of pytest: which tests run in one worker of xdist (`--dist loadgroup`), and which are begun first."""

from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]

# Tests that share a server of the session, so that there is one of each.
_SHARED_FIXTURES = ("_shared_triton", "gateway_address")

# Two whole stacks at once would be too much for two cores.
_SHARED_FOLDERS = ("e2e/whole_stack",)

# The longest groups are begun first, so that no worker is left alone with one at the end.
_FIRST = ("e2e/whole_stack", "integration/triton_server", "integration", "e2e", "models", "k8s")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=_order)


def _group(item: pytest.Item) -> str:
    path = _path(item)
    fixtures = getattr(item, "fixturenames", ())
    folders = [folder for folder in _SHARED_FOLDERS if path.startswith(f"{folder}/")]
    return next((name for name in _SHARED_FIXTURES if name in fixtures), (folders or [path])[0])


def _order(item: pytest.Item) -> int:
    path = _path(item)
    return next((place for place, folder in enumerate(_FIRST) if path.startswith(f"{folder}/")), len(_FIRST))


def _path(item: pytest.Item) -> str:
    return item.path.relative_to(_TESTS).as_posix() if item.path.is_relative_to(_TESTS) else item.path.name
