"""Who gets an answer from the live page's server, and which; no browser needed."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest

pytest.importorskip("bokeh", reason="the extra [live] is not installed")

from saxs_pipeline.apps.dashboard import serve
from saxs_pipeline.outputs.tables import write_series
from saxs_pipeline.types import BadInput

ROUTES = ("/", "/ws", "/series.csv", "/status.json", "/static/js/bokeh.min.js", "/metadata", "/nothing")
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "bokeh, x",
}


def ask(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, b"" if answer.status == 101 else answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=secre", "?token=secret&token=wrong"])
def test_without_the_token_nothing_answers(route, query, scan, latest):
    latest.publish(scan.after(20, 2))
    with serve(latest, port=0, token="secret") as url:
        for method in ("GET", "POST"):
            status, text = ask(url, route + query, method)
            assert status == 403
            assert b"token" in text and b"secret" not in text


def test_with_the_token_it_answers(scan, latest):
    latest.publish(scan.after(20, 2))
    with serve(latest, port=0, token="s/1 ü") as url:
        query = "?" + urlsplit(url).query
        assert [ask(url, path + query)[0] for path in ("/", "/series.csv", "/status.json")] == [200, 200, 200]


@pytest.mark.parametrize("path", ["/static/js/bokeh.min.js", "/static/../pyproject.toml", "/metadata", "/autoload.js"])
def test_nothing_else_of_the_machine_is_there(path, latest):
    with serve(latest, port=0) as url:
        assert ask(url, path)[0] == 404


def test_foreign_pages_and_names_are_refused(latest):
    with serve(latest, port=0, origins=["saxs.example.org"]) as url:
        host = urlsplit(url).netloc
        for origin in ("http://evil.example", "http://127.0.0.1:1", "null", "http://[", f"http://{host}.evil.example"):
            assert ask(url, "/ws", Origin=origin, **UPGRADE)[0] == 403
            assert ask(url, "/series.csv", Origin=origin)[0] == 403
        for good in (f"http://{host}", f"http://localhost:{urlsplit(url).port}", "https://saxs.example.org"):
            assert ask(url, "/ws", Origin=good, **UPGRADE)[0] == 101
        assert ask(url, "/status.json", Host="evil.example")[0] == 403
        assert ask(url, "/status.json", Host="SAXS.example.org")[0] == 200


def test_status_says_how_far_it_is(scan, latest):
    with serve(latest, port=0) as url:
        assert json.loads(ask(url, "/status.json")[1]) == {
            "version": 1, "state": "waiting", "complete": 0, "processed": 0, "flagged": 0, "expected": None,
            "rate": 0.0, "lag_s": None,
        }  # fmt: skip
        latest.publish(scan.after(20, 7))
        status = json.loads(ask(url, "/status.json")[1])
        assert (status["version"], status["state"], status["processed"], status["expected"]) == (7, "running", 20, 40)
        assert (status["complete"], status["rate"], status["lag_s"]) == (21, 9.87, 0.123)


def test_the_table_is_the_newest_results(scan, latest, tmp_path):
    with serve(latest, port=0) as url:
        assert ask(url, "/series.csv")[0] == 404
        for version, frames in enumerate((20, 40), start=2):
            latest.publish(scan.after(frames, version))
            write_series(scan.results[frames], tmp_path / "series.csv")
            assert ask(url, "/series.csv") == (200, (tmp_path / "series.csv").read_bytes())


def test_the_page_carries_all_it_needs(scan, latest):
    latest.publish(scan.after(20, 2))
    with serve(latest, port=0) as url:
        page = ask(url, "/")[1].decode()
    assert "&lt;hot&gt;" in page and "<hot>" not in page
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.DOTALL)
    assert "<script" in markup and "src=" not in markup
    assert re.findall(r'href="([^"]*)"', markup) == ["data:,"]


def test_listens_on_this_machine_alone(latest):
    with serve(latest, port=0) as url:
        assert urlsplit(url).hostname == "127.0.0.1"
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
        for address in others | {"127.0.0.2"}:
            with socket.socket() as other:
                other.settimeout(1)
                assert other.connect_ex((address, urlsplit(url).port)) != 0


def test_a_port_that_is_taken_is_one_line(latest):
    with serve(latest, port=0) as url:
        port = urlsplit(url).port
        with pytest.raises(
            BadInput, match=f"cannot use port {port}: address already in use; give another one"
        ) as caught:
            serve(latest, port=port).__enter__()
        assert len(caught.value.messages) == 1
    with serve(latest, port=port):  # free again at once
        pass


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_is_none(port, latest):
    with pytest.raises(BadInput, match="0 … 65535"), serve(latest, port=port):
        pass


@pytest.mark.parametrize("origin", ["*", "http://a.example", "a.example/x", ""])
def test_an_origin_that_is_none(origin, latest):
    with pytest.raises(BadInput, match="host and port"), serve(latest, port=0, origins=[origin]):
        pass


def test_ends_with_its_context(latest):
    before = threading.active_count()
    for _ in range(3):
        with serve(latest, port=0) as url:
            assert ask(url, "/")[0] == 200
        with pytest.raises(OSError):
            ask(url, "/status.json")
    assert threading.active_count() <= before


def test_without_the_extra_it_says_what_to_install():
    code = (
        "import sys; sys.modules['bokeh'] = None\n"
        "from saxs_pipeline.apps.dashboard import serve\n"
        "from saxs_pipeline.types import BadInput\n"
        "try: serve(None, port=0).__enter__()\n"
        "except BadInput as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "the live page needs Bokeh: pip install 'saxs-pipeline[live]'\n"
