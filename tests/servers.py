"""A server on this machine, for tests of whatever asks over HTTP: a function gives its answers."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit


class Request(NamedTuple):
    """What a client asks. Names of headers are found in any case."""

    method: str
    path: str
    fields: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """What the server says. A `Content-Length` among the headers replaces the true one, and ends the connection."""

    status: int
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = MappingProxyType({})


@contextmanager
def serving(answer: Callable[[Request], Answer | None]) -> Iterator[str]:
    """Serve on a free port of 127.0.0.1 and give the URL; threads call `answer`, None keeps its client waiting."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.answer = answer
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    answer: Callable[[Request], Answer | None]

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.closing = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client was killed, or gave up waiting
            super().handle()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Request(self.command, unquote(url.path), dict(parse_qsl(url.query)), self.headers, body)
        answer = self.server.answer(asked)
        if answer is None:
            self.server.closing.wait(5)
            self.close_connection = True
            return
        whole = isinstance(answer.body, bytes)
        length = {"Content-Length": str(len(answer.body))} if whole else {}
        self.send_response(answer.status)
        for name, value in (length | dict(answer.headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            for part in [answer.body] if whole else answer.body:
                self.wfile.write(part)
        self.close_connection |= "Content-Length" in answer.headers

    do_HEAD = do_POST = do_GET  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *args: object) -> None: ...
