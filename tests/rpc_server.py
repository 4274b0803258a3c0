"""An HTTP server that answers JSON-RPC as a test wants: lying, failing, or passing requests on to a real
node.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Answer", "forward", "result", "serve"]

Answer = Callable[[dict[str, Any]], bytes | None]
"""the bytes that answer a request; None closes the connection without an answer"""


def result(request: dict[str, Any], value: object) -> bytes:
    """A well-formed answer with any result."""
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": value}).encode()


def forward(url: str, request: dict[str, Any]) -> bytes:
    """What the node at ``url`` answers."""
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(url, json.dumps(request).encode(), headers)
    ) as response:
        answer: bytes = response.read()
    return answer


@contextmanager
def serve(answer: Answer, status: int = 200) -> Iterator[str]:
    """The address of a server that answers every request with ``answer``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = answer(request)
            if body is None:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
