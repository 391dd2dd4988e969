"""The live page: a Bokeh server in a thread of its own, on this machine alone, that only shows."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from saxs_pipeline.types import BadInput

if TYPE_CHECKING:
    from saxs_pipeline.apps.snapshot import Latest

HOST = "127.0.0.1"
_ORIGIN = re.compile(r"[\w.-]+(:\d+)?")
Stop = Callable[[], object]


@contextmanager
def serve(latest: Latest, *, port: int, origins: Sequence[str] = (), token: str | None = None) -> Iterator[str]:
    """Serve the page of the newest snapshot while the context is open; yields its address.

    port: 0 takes a free one. origins: further "host" or "host:port" that may stand in a browser's address line, e.g.
    of a proxy. token: whoever does not give it in the address (?token=…) is refused. Raises BadInput if the port is
    taken, an origin is none, or Bokeh is not installed.
    """
    try:
        from saxs_pipeline.apps import page_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"bokeh", "tornado"}:
            raise
        raise BadInput("the live page needs Bokeh: pip install 'saxs-pipeline[live]'") from None
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise BadInput(f"allowed origin {origin!r}: give the host and port of the address, e.g. example.org:5006")
    with _listening(port) as listening:
        taken = listening.getsockname()[1]
        hosts = frozenset({f"{HOST}:{taken}", f"localhost:{taken}", *(origin.lower() for origin in origins)})
        guard = page_server.Guard(hosts, token)
        with _thread(partial(page_server.run, latest, guard, listening)):
            yield f"http://{HOST}:{taken}/" + ("" if token is None else f"?token={quote(token, safe='')}")


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    if not 0 <= port <= 65535:
        raise BadInput(f"the live page cannot use port {port}: ports are 0 … 65535")
    try:
        listening = socket.create_server((HOST, port), backlog=128)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise BadInput(f"the live page cannot use port {port}: {reason}; give another one, --port") from None
    with listening:
        listening.setblocking(False)
        yield listening


@contextmanager
def _thread(serving: Callable[[Future[Stop]], Coroutine[None, None, None]]) -> Iterator[None]:
    """Run a coroutine in a thread with an event loop of its own; it hands back the function that ends it."""
    started: Future[Stop] = Future()

    def work() -> None:
        try:
            asyncio.run(serving(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=work, name="live page", daemon=True)
    thread.start()
    stop = started.result()
    try:
        yield
    finally:
        stop()
        thread.join()
