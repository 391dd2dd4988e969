"""What the page's server answers: the page itself, /series.csv, /status.json; nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import math
import socket
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import jinja2
from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.document import Document
from bokeh.resources import Resources
from bokeh.server.callbacks import PeriodicCallback
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import RequestHandler

from saxs_pipeline.apps.page_image import Pictures
from saxs_pipeline.apps.page_series import SharedTable
from saxs_pipeline.apps.page_session import open_page
from saxs_pipeline.apps.snapshot import Latest
from saxs_pipeline.outputs.tables import series_text

LONGEST_GOODBYE_S = 1.0
LARGEST_MESSAGE = 1_000_000
"""Bytes that a browser may send at once; it sends controls' values only."""


class Guard(NamedTuple):
    """Who may ask: through one of the hosts ("host:port"), from a page of one of them, with the token if there is one.

    The host is checked so that no foreign name can be made to point here by its owner (DNS rebinding).
    """

    hosts: frozenset[str]
    token: str | None

    def refusal(self, request: HTTPServerRequest) -> str:
        """Why this request is refused, "" if it is not."""
        if request.host.lower() not in self.hosts:
            return "this address is not allowed; give it as --allow-websocket-origin"
        origin = request.headers.get("Origin")
        if origin is not None and _host(origin) not in self.hosts:
            return "requests from this origin are not allowed; give it as --allow-websocket-origin"
        given = request.query_arguments.get("token", [b""])[-1]
        if self.token is not None and not hmac.compare_digest(given, self.token.encode()):
            return "the token is missing or wrong; use the whole address that was printed at the start"
        return ""


def _host(origin: str) -> str | None:
    """ "host:port" of an origin as a browser gives it, None of what is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


async def run(latest: Latest, guard: Guard, listening: socket.socket, started: Future[Callable[[], object]]) -> None:
    """Serve on the listening socket until the function that `started` receives is called, from any thread."""
    logging.getLogger("bokeh").setLevel(logging.ERROR)  # a browser that leaves is not worth a warning
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    pictures = Pictures()
    application = _Tornado(latest, guard, pictures)
    http = HTTPServer(application)
    http.add_socket(listening)
    server = BaseServer(IOLoop.current(), application, http)
    server.start()
    started.set_result(lambda: loop.call_soon_threadsafe(stop.set))
    try:
        await stop.wait()
    finally:
        server.stop(wait=False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(application.say_goodbye(), LONGEST_GOODBYE_S)
        await http.close_all_connections()
        pictures.close()


class _Tornado(BokehTornado):  # type: ignore[misc]  # of bokeh nothing is followed: mypy would take twice as long
    """Bokeh's routes and ours behind the guard; the browser gets all scripts with the page."""

    def __init__(self, latest: Latest, guard: Guard, pictures: Pictures) -> None:
        self._guard = guard
        self._websockets: dict[Any, Any] = {}
        template, tables = _template(), SharedTable()
        query = "" if guard.token is None else f"?token={quote(guard.token, safe='')}"

        def fill(document: Document) -> None:
            document.template, document.title = template, latest.pull().title
            open_page(document, latest, pictures, tables, f"series.csv{query}")

        super().__init__(
            Application(FunctionHandler(fill)),
            extra_websocket_origins=sorted(guard.hosts),
            extra_patterns=[(path, answer, {"latest": latest}) for path, answer in _ANSWERS.items()],
            websocket_max_message_size_bytes=LARGEST_MESSAGE,
            log_function=lambda _: None,
        )

    def new_connection(self, protocol: Any, socket: Any, application_context: Any, session: Any) -> Any:
        """Bokeh's, and which websocket it is."""
        connection = super().new_connection(protocol, socket, application_context, session)
        self._websockets[connection] = socket
        return connection

    def client_lost(self, connection: Any) -> None:
        """Bokeh's, and the websocket is forgotten."""
        self._websockets.pop(connection, None)
        super().client_lost(connection)

    async def say_goodbye(self) -> None:
        """End all updates and close all websockets, so that nothing is cut off half-way."""
        for session in self.get_sessions("/"):
            locked: Any = session.with_document_locked
            await locked(_end_updates, session.document)
        for websocket in list(self._websockets.values()):
            websocket.close()
        while self._websockets:
            await asyncio.sleep(0.01)

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """The route, or the refusal, whatever was asked for."""
        if reason := self._guard.refusal(request):
            return self.get_handler_delegate(request, _Refused, {"status": 403, "reason": reason})
        if request.path not in {"/", "/ws", *_ANSWERS}:
            return self.get_handler_delegate(request, _Refused, {"status": 404, "reason": "there is no such page"})
        return super().find_handler(request, **kwargs)

    def resources(self, absolute_url: str | bool | None = None) -> Resources:
        """Scripts inside the page, whatever the environment says: no request leaves for them."""
        return Resources(mode="inline", components=["bokeh", "bokeh-widgets"])


def _end_updates(document: Document) -> None:
    periodic = [callback for callback in document.session_callbacks if isinstance(callback, PeriodicCallback)]
    for callback in periodic:
        document.remove_periodic_callback(callback)


def _template() -> jinja2.Template:
    text = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined).from_string(text)  # noqa: S701


class _Answer(RequestHandler):
    """An answer about the newest snapshot, never kept by the browser."""

    def initialize(self, latest: Latest) -> None:
        self.latest = latest

    def set_default_headers(self) -> None:
        self.set_header("Cache-Control", "no-store")


class _Series(_Answer):
    async def get(self) -> None:
        result = self.latest.pull().result
        if result is None:
            self.set_status(404)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish("no frame has been processed yet\n")
            return
        table = await asyncio.get_running_loop().run_in_executor(None, series_text, result)
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="series.csv"')
        self.finish(table)


class _Status(_Answer):
    def get(self) -> None:
        snapshot = self.latest.pull()
        about: dict[str, Any] = {"version": snapshot.version, "state": snapshot.state}
        about |= {name: getattr(snapshot, f"n_{name}") for name in ("complete", "processed", "flagged", "expected")}
        about |= {"rate": snapshot.rate, "lag_s": snapshot.lag_s if math.isfinite(snapshot.lag_s) else None}
        self.finish(about)


_ANSWERS = {"/series.csv": _Series, "/status.json": _Status}


class _Refused(RequestHandler):
    def initialize(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason

    def prepare(self) -> None:
        self.set_status(self.status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{self.reason}\n")
