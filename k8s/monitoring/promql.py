"""Shorthands for the PromQL expressions that the dashboard's panels share.

Each expression sums over the gateways and namespaces selected at the top of the dashboard. The matcher for "All", `.*`,
also matches series without the label, such as those of a Prometheus outside a cluster.
"""

GATEWAY = 'namespace=~"$namespace", instance=~"$instance"'
FLEET = 'namespace=~"$namespace"'
"""Matcher for series that carry no gateway instance: Triton's metrics and recorded series."""


def value(gauge: str, by: str = "", where: str = GATEWAY) -> str:
    """Sum a gauge."""
    return f"{_sum(by)}({gauge}{{{where}}})"


def rate(counter: str, by: str = "", where: str = "", chosen: str = GATEWAY) -> str:
    """Sum a counter's growth per second."""
    return f"{_sum(by)}(rate({_series(counter, where, chosen)}[$__rate_interval]))"


def ratio(part: str, whole: str) -> str:
    """Divide `part` by `whole`. Where `whole` is 0 the series is absent instead of NaN."""
    return f"{part} / ({whole} > 0)"


def quantile(share: float, histogram: str, by: str = "", where: str = "") -> str:
    """Estimate a quantile of a histogram: exact at bucket bounds, interpolated between them."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels, where)})"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"


def _series(name: str, where: str, chosen: str) -> str:
    return f"{name}{{{', '.join(filter(None, (where, chosen)))}}}"
