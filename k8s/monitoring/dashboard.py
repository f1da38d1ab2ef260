"""Generate the Grafana dashboard. Each row answers one question.

    python -m k8s.monitoring.dashboard      writes k8s/monitoring/dashboard.json

The error budget panels show series recorded by `recording-rules.yaml`. The others query the gateway's and Triton's
metrics.
"""

from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders import stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from k8s.monitoring.panels import GREEN, ORANGE, RED, SOURCE, YELLOW, Queries, graph, number
from k8s.monitoring.promql import FLEET, GATEWAY, quantile, rate, ratio, value

PATH = Path(__file__).with_name("dashboard.json")

_GATEWAY_JOB = 'job=~"(.*/)?samserve-gateway"'
_CALL = 'rpc=~"Segment|EmbedImage|GetEmbedding"'
_REQUESTS = "samserve_request_seconds"
_EMBEDDINGS = "samserve_embeddings_total"
_PROMPTS = "samserve_prompts_per_request"


def users() -> list[stat.Panel | timeseries.Panel]:
    """Are users served?"""
    return [
        number(
            "Error budget remaining",
            "Share of the failures allowed by the objective in 30 days that has not been spent.",
            "percentunit",
            {"{{slo}}": f"1 - namespace_slo:samserve_budget_burn:ratio30d{{{FLEET}}}"},
            width=6,
            base=RED,
            steps=[(0, ORANGE), (0.25, GREEN)],
        ),
        graph(
            "Error budget burn rate, 1 h",
            "At 1, the budget lasts exactly 30 days. The alert pages above 14.4, or above 6 for six hours.",
            "none",
            {"{{slo}}": f"namespace_slo:samserve_budget_burn:ratio1h{{{FLEET}}}"},
            width=9,
            steps=[(1, YELLOW), (6, ORANGE), (14.4, RED)],
        ),
        graph(
            "Calls by status",
            "INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION and CANCELLED do not count as failures of the service.",
            "reqps",
            {"{{code}}": rate("samserve_requests_total", by="code")},
            width=9,
            stacked=True,
        ),
        graph(
            "Latency of calls on cached images",
            "Measured by the gateway. Objective: 99 % of calls within 100 ms.",
            "s",
            _quantiles(_REQUESTS, f'{_CALL}, embedding="warm"'),
            width=8,
            steps=[(0.1, RED)],
        ),
        graph(
            "Latency of calls that wait for an encode",
            "Measured by the gateway. Objective: 99 % of calls within 2.5 s.",
            "s",
            _quantiles(_REQUESTS, f'{_CALL}, embedding="cold"'),
            width=8,
            steps=[(2.5, RED)],
        ),
        graph(
            "Staleness of gaze answers",
            "Time from the arrival of a sample until the client has read the answer. Objective: 99 % within 50 ms.",
            "s",
            _quantiles("samserve_gaze_staleness_seconds"),
            width=8,
            steps=[(0.05, RED)],
        ),
        graph(
            "Calls rejected for load",
            "Calls rejected with RESOURCE_EXHAUSTED, by the limit that was reached.",
            "reqps",
            {"{{reason}}": rate("samserve_shed_total", by="reason")},
            width=8,
        ),
        graph(
            "Gaze samples by outcome",
            "Only decoded samples run the mask decoder. A sample is dropped if a newer one overtakes it.",
            "cps",
            {"{{outcome}}": rate("samserve_gaze_samples_total", by="outcome")},
            width=8,
            stacked=True,
        ),
        graph(
            "Gateways and streams",
            "Gateways that Prometheus can scrape, gateways whose models are ready, and open streams.",
            "short",
            {
                "gateways up": value("up", where=f"{_GATEWAY_JOB}, {GATEWAY}"),
                "gateways ready": value("samserve_models_ready"),
                "streams": value("samserve_in_flight", where=f'limit="streams", {GATEWAY}'),
            },
            width=8,
        ),
    ]


def cache() -> list[stat.Panel | timeseries.Panel]:
    """Is the cache effective?"""
    by_source = f"{rate(_EMBEDDINGS, by='source')} / ignoring (source) group_left () ({rate(_EMBEDDINGS)} > 0)"
    return [
        graph(
            "Embeddings by source",
            "Share of requests. Every source except encoded avoids a run of the encoder.",
            "percentunit",
            {"{{source}}": by_source},
            width=9,
            stacked=True,
        ),
        graph(
            "Encodes run and avoided",
            "Followers are calls that waited for an encode of the same image started by another call.",
            "ops",
            {
                "run": rate(_EMBEDDINGS, where='source="encoded"'),
                "avoided": rate("samserve_encodes_avoided_total"),
                "followers": rate("samserve_single_flight_followers_total"),
            },
            width=9,
        ),
        number(
            "Encodes avoided",
            "Encoder runs avoided in the selected time range.",
            "short",
            {"avoided": f"sum(increase(samserve_encodes_avoided_total{{{GATEWAY}}}[$__range]))"},
            width=6,
        ),
        graph(
            "Memory cache: size",
            "Bytes used, and the capacity in bytes.",
            "bytes",
            {"used": value("samserve_memory_cache_bytes"), "capacity": value("samserve_memory_cache_max_bytes")},
            width=6,
        ),
        graph(
            "Memory cache: entries and evictions",
            "If evicted images are requested again, the memory cache is too small.",
            "short",
            {
                "entries": value("samserve_memory_cache_entries"),
                "evicted per minute": f"60 * {rate('samserve_memory_cache_evictions_total')}",
            },
            width=6,
        ),
        graph(
            "Redis calls by outcome",
            "Reads, writes and leases. A failed read is a cache miss. Skipped: the circuit breaker is open.",
            "ops",
            {"{{outcome}}": rate("samserve_redis_calls_total", by="outcome")},
            width=6,
            stacked=True,
        ),
        graph(
            "Redis: open breakers and rejected values",
            "Gateways that skip Redis, and stored embeddings that failed validation and were treated as misses.",
            "short",
            {
                "breakers open": value("samserve_redis_breaker_open"),
                "rejected per minute": f"60 * {rate('samserve_cache_rejected_total')}",
            },
            width=6,
            steps=[(1, RED)],
        ),
    ]


def bottleneck() -> list[stat.Panel | timeseries.Panel]:
    """Where is the bottleneck?"""
    in_triton = rate("nv_inference_request_success", by="model", chosen=FLEET)
    queued = rate("nv_inference_queue_duration_us", by="model", chosen=FLEET)
    computed = rate("nv_inference_compute_infer_duration_us", by="model", chosen=FLEET)
    rows = rate("nv_inference_count", by="model", chosen=FLEET)
    runs = rate("nv_inference_exec_count", by="model", chosen=FLEET)
    return [
        graph(
            "Concurrent work by stage",
            "Mean number of calls in each stage (seconds spent per second). The largest stage is the bottleneck.",
            "none",
            {"{{stage}}": rate("samserve_stage_seconds_sum", by="stage")},
            width=8,
            stacked=True,
        ),
        graph(
            "Stage duration",
            "95th percentile. Time in Triton's queue is part of encode and mask_decode.",
            "s",
            {"{{stage}}": quantile(0.95, "samserve_stage_seconds", by="stage")},
            width=8,
        ),
        graph(
            "Limit utilization",
            "Work in flight as a share of its limit. At 100 %, further work is rejected.",
            "percentunit",
            {"{{limit}}": ratio(value("samserve_in_flight", "limit"), value("samserve_in_flight_max", "limit"))},
            width=8,
            steps=[(0.8, ORANGE), (1, RED)],
        ),
        graph(
            "Queued work",
            "Encodes admitted but not yet running, and requests in Triton's queues.",
            "short",
            {
                "encodes": value("samserve_queued"),
                "Triton: {{model}}": value("nv_inference_pending_request_count", by="model", where=FLEET),
            },
            width=8,
        ),
        graph(
            "Gateway CPU",
            "Cores used. A gateway has one event loop; near 1 core it is the bottleneck, so add a gateway.",
            "none",
            {"{{instance}}": rate("process_cpu_seconds_total", by="instance", where=_GATEWAY_JOB)},
            width=8,
        ),
        graph(
            "Prompts per request",
            "Prompts of one request share runs of the mask decoder.",
            "short",
            {"mean": ratio(rate(f"{_PROMPTS}_sum"), rate(f"{_PROMPTS}_count")), "p95": quantile(0.95, _PROMPTS)},
            width=8,
        ),
        graph(
            "Triton: queue time and compute time",
            "Mean per request. If queue time exceeds compute time, the model is the bottleneck, so add a Triton.",
            "s",
            {
                "{{model}}: queue": f"1e-6 * {ratio(queued, in_triton)}",
                "{{model}}: compute": f"1e-6 * {ratio(computed, in_triton)}",
            },
            width=8,
        ),
        graph(
            "Triton: batch size",
            "Mean size of the batches that Triton forms from queued requests.",
            "short",
            {"{{model}}": ratio(rows, runs)},
            width=8,
        ),
        graph(
            "Triton: requests",
            "Failed requests include those rejected by a full queue and those that timed out in it.",
            "reqps",
            {
                "{{model}}": in_triton,
                "{{model}}: failed": rate("nv_inference_request_failure", by="model", chosen=FLEET),
            },
            width=8,
        ),
    ]


def build() -> model.Dashboard:
    """Build the dashboard."""
    board = grafana.Dashboard("samserve").uid("samserve").tags(["samserve"]).readonly()
    board.description("Are users served? Is the cache effective? Where is the bottleneck?")
    board.tooltip(model.DashboardCursorSync.CROSSHAIR).refresh("30s").time("now-1h", "now")
    board.with_variable(grafana.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    board.with_variable(_choice("namespace", "label_values(samserve_build_info, namespace)"))
    board.with_variable(_choice("instance", f"label_values(samserve_build_info{{{FLEET}}}, instance)"))
    alerts = grafana.AnnotationQuery().name("Alerts").datasource(SOURCE).enable(True).icon_color(RED)
    board.annotation(alerts.expr('ALERTS{alertname=~"Samserve.*", alertstate="firing"}'))
    for question in (users, cache, bottleneck):
        board.with_row(grafana.Row(str(question.__doc__)))
        for panel in question():
            board.with_panel(panel)
    built = board.build()
    for panel_id, panel_or_row in enumerate(built.panels or [], start=1):
        panel_or_row.id_val = panel_id
    return built


def render() -> str:
    """Render the content of `dashboard.json`."""
    return JSONEncoder(indent=2, sort_keys=True).encode(build()) + "\n"


def _quantiles(histogram: str, where: str = "") -> Queries:
    return {f"p{round(100 * share)}": quantile(share, histogram, where=where) for share in (0.5, 0.95, 0.99)}


def _choice(name: str, query: str) -> grafana.QueryVariable:
    variable = grafana.QueryVariable(name).label(name.capitalize()).datasource(SOURCE).query(query)
    variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".*")
    return variable.current(model.VariableOption(text="All", value="$__all"))


if __name__ == "__main__":
    PATH.write_text(render())
