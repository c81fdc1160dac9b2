"""Metrics of every service, exported over HTTP in Prometheus text format."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, start_http_server

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

CALLS = Counter(
    "imagesearch_rpc_total", "Finished calls by method and status code.", ["method", "code"]
)
DURATION = Histogram(
    "imagesearch_rpc_duration_seconds",
    "Duration of calls by method.",
    ["method"],
    buckets=LATENCY_BUCKETS_S,
)
IN_FLIGHT = Gauge("imagesearch_rpc_in_flight", "Calls in progress.")
HEALTHY = Gauge(
    "imagesearch_healthy", "1 while the service and its dependencies are healthy, else 0."
)
ADMISSION = Counter(
    "imagesearch_admission_total",
    "Calls that were admitted, or refused with OVERLOADED, by kind of work and result.",
    ["work", "result"],
)
ADMISSION_LIMIT = Gauge(
    "imagesearch_admission_limit", "Calls that may be in progress, by kind of work.", ["work"]
)
ADMISSION_IN_PROGRESS = Gauge(
    "imagesearch_admission_in_progress", "Admitted calls in progress, by kind of work.", ["work"]
)
ADMISSION_QUEUED = Gauge(
    "imagesearch_admission_queued", "Admitted work that waits for its turn.", ["work"]
)


def export_metrics(host: str, port: int) -> None:
    """Serve /metrics in a thread. Port 0 disables the export."""
    if port:
        start_http_server(port, addr=host)
