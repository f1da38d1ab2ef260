"""The HTTP endpoint that Prometheus scrapes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app


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


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Ipv6Server(_Server):
    address_family = socket.AF_INET6


@contextmanager
def metrics_endpoint(registry: CollectorRegistry, host: str, port: int) -> Iterator[int]:
    """Serve the metrics over HTTP inside the context, in a thread of its own; yields the port.

    Args:
        port: 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """
    name = host.strip("[]")
    server_class = _Ipv6Server if ":" in name else _Server
    server = make_server(name, port, make_wsgi_app(registry), server_class, ScrapeHandler)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    with server:
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
