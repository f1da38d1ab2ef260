"""Queries to a Prometheus server through its HTTP API."""

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Values: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

_TIMEOUT_SECONDS = 30.0


class QueryRefused(Exception):
    """Prometheus rejects an expression; the message is Prometheus' own."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One series of a result: labels, times in Unix seconds, and values."""

    labels: dict[str, str]
    times: Values
    values: Values


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus server at `url`, such as `http://127.0.0.1:9090`."""

    url: str

    def query(self, expression: str) -> list[Series]:
        """Evaluate an expression now. Raises QueryRefused."""
        result = self.get("query", query=expression)["result"]
        return [_series(each["metric"], [each["value"]]) for each in result]

    def query_range(self, expression: str, start: float, end: float, step_seconds: float) -> list[Series]:
        """Evaluate an expression over a time range. Raises QueryRefused."""
        answer = self.get("query_range", query=expression, start=start, end=end, step=step_seconds)
        return [_series(each["metric"], each["values"]) for each in answer["result"]]

    def get(self, what: str, **parameters: object) -> Any:
        """Return the data of an API response under `/api/v1/`. Raises QueryRefused."""
        url = f"{self.url.rstrip('/')}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryRefused(json.load(error)["error"]) from error


def _series(labels: dict[str, str], samples: list[tuple[float, str]]) -> Series:
    times, values = zip(*samples, strict=True)
    return Series(labels, np.array(times, dtype=np.float64), np.array([float(value) for value in values]))
