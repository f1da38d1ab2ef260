"""How Prometheus' endpoint deals with clients."""

from contextlib import suppress
from wsgiref.simple_server import WSGIRequestHandler


class ScrapeHandler(WSGIRequestHandler):
    """One scrape. A client that sends nothing for a while is let go, for it holds a thread; it is not logged."""

    timeout = 10.0

    def handle(self) -> None:
        """See `BaseHTTPRequestHandler.handle`."""
        # The client hangs or has gone: there is nobody to tell.
        with suppress(OSError):
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        """Write no line for each scrape."""
