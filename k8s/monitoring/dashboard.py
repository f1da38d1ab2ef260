"""The Grafana dashboard: three questions, a row each.

    python -m k8s.monitoring.dashboard      writes k8s/monitoring/dashboard.json

The panels of the error budget show what `recording-rules.yaml` records, the others the gateway's and Triton's metrics.
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
            "Error budget left",
            "Share of the failures allowed by the objective in 30 days that is not spent.",
            "percentunit",
            {"{{slo}}": f"1 - namespace_slo:samserve_budget_burn:ratio30d{{{FLEET}}}"},
            width=6,
            base=RED,
            steps=[(0, ORANGE), (0.25, GREEN)],
        ),
        graph(
            "Burn of the error budget, over an hour",
            "At 1, the budget lasts exactly 30 days. Above 14.4 the alert pages; above 6 it pages if that lasts.",
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
            "Measured by the gateway. Objective: 99 % take at most 100 ms.",
            "s",
            _quantiles(_REQUESTS, f'{_CALL}, embedding="warm"'),
            width=8,
            steps=[(0.1, RED)],
        ),
        graph(
            "Latency of calls that wait for an encode",
            "Measured by the gateway. Objective: 99 % take at most 2.5 s.",
            "s",
            _quantiles(_REQUESTS, f'{_CALL}, embedding="cold"'),
            width=8,
            steps=[(2.5, RED)],
        ),
        graph(
            "Staleness of gaze answers",
            "From the arrival of a sample until the client has read the answer. Objective: 99 % within 50 ms.",
            "s",
            _quantiles("samserve_gaze_staleness_seconds"),
            width=8,
            steps=[(0.05, RED)],
        ),
        graph(
            "Refused for load",
            "Calls that got RESOURCE_EXHAUSTED, by limit.",
            "reqps",
            {"{{reason}}": rate("samserve_shed_total", by="reason")},
            width=8,
        ),
        graph(
            "Gaze samples by what became of them",
            "Only decoded samples run the mask decoder. Dropped samples arrived faster than they could be answered.",
            "cps",
            {"{{outcome}}": rate("samserve_gaze_samples_total", by="outcome")},
            width=8,
            stacked=True,
        ),
        graph(
            "Gateways and streams",
            "Gateways that are up, gateways whose models are ready, and open streams.",
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
    """Is the cache earning its keep?"""
    by_source = f"{rate(_EMBEDDINGS, by='source')} / ignoring (source) group_left () ({rate(_EMBEDDINGS)} > 0)"
    return [
        graph(
            "Where embeddings came from",
            "Share of requests. All sources except encoded skip the encoder.",
            "percentunit",
            {"{{source}}": by_source},
            width=9,
            stacked=True,
        ),
        graph(
            "Encodes made and avoided",
            "Followers waited for the encode of another call for the same image.",
            "ops",
            {
                "made": rate(_EMBEDDINGS, where='source="encoded"'),
                "avoided": rate("samserve_encodes_avoided_total"),
                "followers": rate("samserve_single_flight_followers_total"),
            },
            width=9,
        ),
        number(
            "Encodes avoided",
            "In the selected time range.",
            "short",
            {"avoided": f"sum(increase(samserve_encodes_avoided_total{{{GATEWAY}}}[$__range]))"},
            width=6,
        ),
        graph(
            "Memory tier",
            "Bytes used, and capacity.",
            "bytes",
            {"held": value("samserve_memory_cache_bytes"), "allowed": value("samserve_memory_cache_max_bytes")},
            width=6,
        ),
        graph(
            "Memory tier: entries and evictions",
            "If evicted images are requested again, the tier is too small.",
            "short",
            {
                "entries": value("samserve_memory_cache_entries"),
                "evicted a minute": f"60 * {rate('samserve_memory_cache_evictions_total')}",
            },
            width=6,
        ),
        graph(
            "Calls of Redis",
            "Reads, writes and leases. A read that times out or fails is a miss. Skipped: the circuit breaker is open.",
            "ops",
            {"{{outcome}}": rate("samserve_redis_calls_total", by="outcome")},
            width=6,
            stacked=True,
        ),
        graph(
            "Redis: breakers open, values refused",
            "Gateways that skip Redis, and stored embeddings that failed validation and were not served.",
            "short",
            {
                "breakers open": value("samserve_redis_breaker_open"),
                "refused a minute": f"60 * {rate('samserve_cache_rejected_total')}",
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
            "Work by stage",
            "Seconds spent per second, the mean number of calls in a stage. The largest stage is the bottleneck.",
            "none",
            {"{{stage}}": rate("samserve_stage_seconds_sum", by="stage")},
            width=8,
            stacked=True,
        ),
        graph(
            "Duration of a stage",
            "95th percentile. Triton's queue is part of encode and mask_decode.",
            "s",
            {"{{stage}}": quantile(0.95, "samserve_stage_seconds", by="stage")},
            width=8,
        ),
        graph(
            "In flight, of the limit",
            "At 100 %, further work is rejected.",
            "percentunit",
            {"{{limit}}": ratio(value("samserve_in_flight", "limit"), value("samserve_in_flight_max", "limit"))},
            width=8,
            steps=[(0.8, ORANGE), (1, RED)],
        ),
        graph(
            "Waiting",
            "Encodes admitted but not yet running, and requests in Triton's queues.",
            "short",
            {
                "encodes": value("samserve_queued"),
                "Triton: {{model}}": value("nv_inference_pending_request_count", by="model", where=FLEET),
            },
            width=8,
        ),
        graph(
            "CPU of the gateways",
            "Cores. A gateway has one event loop: near 1 it is the bottleneck; add a gateway.",
            "none",
            {"{{instance}}": rate("process_cpu_seconds_total", by="instance", where=_GATEWAY_JOB)},
            width=8,
        ),
        graph(
            "Prompts of a request",
            "Many prompts on one image share a run of the mask decoder.",
            "short",
            {"mean": ratio(rate(f"{_PROMPTS}_sum"), rate(f"{_PROMPTS}_count")), "p95": quantile(0.95, _PROMPTS)},
            width=8,
        ),
        graph(
            "Triton: time in the queue and in the model",
            "Per request. If the queue takes longer than the model, the model is the bottleneck; add a Triton.",
            "s",
            {
                "{{model}}: queue": f"1e-6 * {ratio(queued, in_triton)}",
                "{{model}}: model": f"1e-6 * {ratio(computed, in_triton)}",
            },
            width=8,
        ),
        graph(
            "Triton: rows of a run",
            "Size of the batches that Triton forms from queued requests.",
            "short",
            {"{{model}}": ratio(rows, runs)},
            width=8,
        ),
        graph(
            "Triton: requests",
            "Failed requests include those that met a full queue or waited in it for too long.",
            "reqps",
            {
                "{{model}}": in_triton,
                "{{model}}: failed": rate("nv_inference_request_failure", by="model", chosen=FLEET),
            },
            width=8,
        ),
    ]


def build() -> model.Dashboard:
    """The dashboard."""
    board = grafana.Dashboard("samserve").uid("samserve").tags(["samserve"]).readonly()
    board.description("Are users served? Does the cache help? Where is the bottleneck?")
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
    """What `dashboard.json` holds."""
    return JSONEncoder(indent=2, sort_keys=True).encode(build()) + "\n"


def _quantiles(histogram: str, where: str = "") -> Queries:
    return {f"p{round(100 * share)}": quantile(share, histogram, where=where) for share in (0.5, 0.95, 0.99)}


def _choice(name: str, query: str) -> grafana.QueryVariable:
    variable = grafana.QueryVariable(name).label(name.capitalize()).datasource(SOURCE).query(query)
    variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".*")
    return variable.current(model.VariableOption(text="All", value="$__all"))


if __name__ == "__main__":
    PATH.write_text(render())
