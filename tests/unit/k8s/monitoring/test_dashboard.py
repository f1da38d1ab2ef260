"""The committed dashboard is what its module makes, and one that Grafana can lay out."""

import json
from itertools import combinations
from typing import Any

import pytest

from benchmarks import dashboard_picture
from k8s.monitoring.dashboard import PATH, render

COLUMNS = 24


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    board: dict[str, Any] = json.loads(PATH.read_text())
    return board


@pytest.fixture(scope="module")
def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Those with data."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_committed_json_is_up_to_date() -> None:
    assert PATH.read_text() == render(), "make it anew: python -m k8s.monitoring.dashboard"


def test_rows_are_the_three_questions(board: dict[str, Any]) -> None:
    assert [panel["title"] for panel in board["panels"] if panel["type"] == "row"] == [
        "Are users served?",
        "Is the cache effective?",
        "Where is the bottleneck?",
    ]


def test_panel_ids_are_unique(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_panels_fill_the_grid_without_overlap(board: dict[str, Any]) -> None:
    cells = [
        {(place["x"] + column, place["y"] + row) for column in range(place["w"]) for row in range(place["h"])}
        for place in (panel["gridPos"] for panel in board["panels"])
    ]
    assert not any(one & other for one, other in combinations(cells, 2))
    taken = set[tuple[int, int]]().union(*cells)
    assert taken == {(x, y) for x in range(COLUMNS) for y in range(max(y for _, y in taken) + 1)}


def test_every_panel_has_a_description_and_a_unit(panels: list[dict[str, Any]]) -> None:
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert dashboard_picture.text(1.5, panel["fieldConfig"]["defaults"]["unit"])


def test_every_query_goes_to_the_chosen_source_and_the_chosen_gateways(
    board: dict[str, Any], panels: list[dict[str, Any]]
) -> None:
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "namespace", "instance"]
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        for target in panel["targets"]:
            assert 'namespace=~"$namespace"' in target["expr"]
            assert target["legendFormat"]
