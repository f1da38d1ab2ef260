"""The HTTP handler of Prometheus' endpoint."""

from contextlib import suppress
from wsgiref.simple_server import WSGIRequestHandler


class ScrapeHandler(WSGIRequestHandler):
    """One scrape. A client that sends nothing for a while is disconnected, because it occupies a thread. Scrapes are
    not logged."""

    timeout = 10.0

    def handle(self) -> None:
        # The client hangs or has disconnected, so there is nothing to report.
        with suppress(OSError):
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""
