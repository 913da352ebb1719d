"""Between an endpoint and its server: proxies of the environment, and where the key goes."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rlvr.agents.endpoints import Endpoint, EndpointError, Patience
from rlvr.verifiers import UsageError

ONCE = Patience(attempts=1, timeout=30)
Heard = list[tuple[str, dict[str, str]]]


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """A proxy that answers by itself and tunnels nowhere; yields what it heard."""
    heard: Heard = []

    class Handler(BaseHTTPRequestHandler):
        def _note(self) -> None:
            heard.append((f"{self.command} {self.path}", dict(self.headers.items())))

        def do_GET(self) -> None:
            self._note()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"by": "proxy"}')

        def do_CONNECT(self) -> None:
            self._note()
            self.send_error(502)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, address)
    yield heard
    server.shutdown()
    server.server_close()


def test_the_proxy_of_the_environment_is_used_and_the_key_is_for_the_server(proxy: Heard) -> None:
    endpoint = Endpoint("http://models.invalid/v1", ONCE, key="secret")
    assert endpoint.submit("/models").result() == {"by": "proxy"}
    endpoint.close()
    ((asked, headers),) = proxy
    assert asked == "GET http://models.invalid/v1/models"
    assert headers["Authorization"] == "Bearer secret"
    assert "Proxy-Authorization" not in headers


def test_a_tunnel_is_asked_for_without_the_key(proxy: Heard) -> None:
    endpoint = Endpoint("https://models.invalid/v1", ONCE, key="secret")
    with pytest.raises(EndpointError, match="502"):
        endpoint.submit("/models").result()
    endpoint.close()
    ((asked, headers),) = proxy
    assert asked == "CONNECT models.invalid:443"
    assert "secret" not in str(headers)


def test_no_proxy_stands_before_this_machine_and_those_that_are_excepted(
    proxy: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "models.invalid")
    for url in ("http://127.0.0.1:9/v1", "http://models.invalid/v1"):
        endpoint = Endpoint(url, ONCE)
        with pytest.raises(EndpointError, match="Cannot connect"):
            endpoint.submit("/models").result()
        endpoint.close()
    assert proxy == []


def test_a_proxy_that_speaks_no_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(UsageError, match=r"begins with 'socks5://'.*NO_PROXY=models\.invalid"):
        Endpoint("https://models.invalid/v1")
