"""The two kinds of panel on the Grafana dashboard, built with Grafana's SDK."""

from collections.abc import Sequence
from typing import TypeAlias

from grafana_foundation_sdk.builders import common, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
RED, ORANGE, YELLOW, GREEN = "red", "orange", "yellow", "green"

Queries: TypeAlias = dict[str, str]
"""PromQL expressions, keyed by the legend of their series."""
Steps: TypeAlias = Sequence[tuple[float, str]]
"""Thresholds: pairs of a value and the colour used from that value up."""

_HEIGHT = 8


def graph(
    title: str, description: str, unit: str, queries: Queries, width: int, steps: Steps = (), stacked: bool = False
) -> timeseries.Panel:
    """Build a time series panel from 0 up, with thresholds drawn as lines. `width` counts Grafana's 24 columns."""
    panel = timeseries.Panel().title(title).description(description).datasource(SOURCE).unit(unit).min(0)
    panel.span(width).height(_HEIGHT)
    panel.targets(_targets(queries))
    panel.show_points(VisibilityMode.NEVER).fill_opacity(40 if stacked else 8)
    legend = common.VizLegendOptions().show_legend(True)
    panel.legend(legend.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM))
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if steps:
        panel.thresholds(_thresholds("transparent", steps))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return panel


def number(
    title: str, description: str, unit: str, queries: Queries, width: int, base: str = GREEN, steps: Steps = ()
) -> stat.Panel:
    """Build a panel of the latest values, coloured by threshold. `base` is the colour below the first threshold."""
    panel = stat.Panel().title(title).description(description).datasource(SOURCE).unit(unit)
    panel.span(width).height(_HEIGHT)
    panel.targets(_targets(queries))
    panel.color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.thresholds(_thresholds(base, steps))
    return panel


def _thresholds(base: str, steps: Steps) -> grafana.ThresholdsConfig:
    thresholds = [model.Threshold(None, base), *(model.Threshold(value, colour) for value, colour in steps)]
    return grafana.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(thresholds)


def _targets(queries: Queries) -> list[Builder[variants.Dataquery]]:
    return [
        Dataquery().ref_id(chr(ord("A") + index)).expr(expression).legend_format(legend)
        for index, (legend, expression) in enumerate(queries.items())
    ]
