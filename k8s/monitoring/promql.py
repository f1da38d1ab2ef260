"""The dashboard's expressions: shorthands for what its panels ask again and again.

Sums over the gateways and namespaces that are chosen at the top of the dashboard. A matcher of all (`.*`) also matches
series that lack the label, such as those of a Prometheus outside a cluster.
"""

GATEWAY = 'namespace=~"$namespace", instance=~"$instance"'
FLEET = 'namespace=~"$namespace"'
"""Matches what has no gateway's instance: Triton's metrics, and recorded ones."""


def value(gauge: str, by: str = "", where: str = GATEWAY) -> str:
    """The sum of a gauge."""
    return f"{_sum(by)}({gauge}{{{where}}})"


def rate(counter: str, by: str = "", where: str = "", chosen: str = GATEWAY) -> str:
    """What a counter grows a second."""
    return f"{_sum(by)}(rate({_series(counter, where, chosen)}[$__rate_interval]))"


def ratio(part: str, whole: str) -> str:
    """A quotient that is absent, rather than 0/0, where nothing happened."""
    return f"{part} / ({whole} > 0)"


def quantile(share: float, histogram: str, by: str = "", where: str = "") -> str:
    """A quantile of what a histogram observed: exact at its edges, interpolated between them."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels, where)})"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"


def _series(name: str, where: str, chosen: str) -> str:
    return f"{name}{{{', '.join(filter(None, (where, chosen)))}}}"
