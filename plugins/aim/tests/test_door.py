"""The door of the dashboard: who is let in, and that the others reach nothing."""

import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import psutil  # type: ignore[import-untyped]
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from platform_aim.door import Door
from platform_aim.secret import Secret
from platform_aim.tracker import AimTracker
from platform_core.record.directory import RunDirectory
from platform_core.record.tracker import About, Guarded

RUN = "0123456789abcdef01234567"
PROGRAM = "(lambda: __import__('os').system('touch pwned'))()"
EVIL = "http://evil.example"


class Answer(NamedTuple):
    """What a server said."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Attack(NamedTuple):
    """A request that must not get through; its headers are made of the secret."""

    headers: Callable[[Secret], Mapping[str, str]]
    method: str = "GET"
    path: str = "/api/projects/"


def nothing(secret: Secret) -> Mapping[str, str]:
    """The headers of who does not know the secret."""
    return {}


def signed(**more: str) -> Callable[[Secret], Mapping[str, str]]:
    """The cookie, as a browser would send it, and more headers; {port} is filled in."""

    def headers(secret: Secret) -> Mapping[str, str]:
        named = {name.replace("_", "-"): value for name, value in more.items()}
        filled = {name: value.format(port=secret.port) for name, value in named.items()}
        return {**secret.cookie, **filled}

    return headers


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
QUERY = urlencode({"q": PROGRAM})
ATTACKS = {
    "the page": Attack(nothing, path="/"),
    "a static file": Attack(nothing, path="/static-files/manifest.json"),
    "the interface": Attack(nothing),
    "its documentation": Attack(nothing, path="/api/docs"),
    "a wrong key": Attack(nothing, path="/?key=wrong"),
    "an empty key": Attack(nothing, path="/?key="),
    "two keys": Attack(nothing, path="/?key=wrong&key=wrong"),
    "a key in a post": Attack(nothing, "POST", "/?key={value}"),
    "a key elsewhere": Attack(nothing, path="/api/projects/?key={value}"),
    "a wrong cookie": Attack(lambda secret: Secret(secret.port, "wrong").cookie),
    "no cookie": Attack(lambda secret: Secret(secret.port, "").cookie),
    "a cookie of another port": Attack(lambda secret: Secret(1, secret.value).cookie),
    "another host": Attack(signed(Host="evil.example:{port}")),
    "another host with a key": Attack(signed(Host="evil.example:{port}"), path="/?key={value}"),
    "no port": Attack(signed(Host="127.0.0.1")),
    "another port": Attack(signed(Host="127.0.0.1:1")),
    "another address": Attack(signed(Host="0.0.0.0:{port}")),
    "another origin": Attack(signed(Origin=EVIL), "POST", "/api/apps/"),
    "no origin": Attack(signed(Origin="null")),
    "an origin of another port": Attack(signed(Origin="http://127.0.0.1:1")),
    "an origin of another name": Attack(signed(Origin="http://localhost:{port}")),
    "another protocol": Attack(signed(Origin="https://127.0.0.1:{port}")),
    "another site": Attack(signed(Sec_Fetch_Site="cross-site")),
    "another site with a key": Attack(signed(Sec_Fetch_Site="cross-site"), path="/?key={value}"),
    "a port of this site": Attack(signed(Sec_Fetch_Site="same-site")),
    "a preflight": Attack(
        lambda secret: {"Origin": EVIL, "Access-Control-Request-Method": "DELETE"}, "OPTIONS"
    ),
    "a signed preflight": Attack(
        signed(Origin=EVIL, Access_Control_Request_Method="DELETE"), "OPTIONS"
    ),
    "a program": Attack(nothing, path=f"/api/runs/search/run/?{QUERY}"),
    "a program of another site": Attack(signed(Origin=EVIL), path=f"/api/runs/search/run/?{QUERY}"),
    "deleting": Attack(nothing, "DELETE", f"/api/runs/{RUN}/"),
    "deleting from another site": Attack(signed(Origin=EVIL), "DELETE", f"/api/runs/{RUN}/"),
    "a websocket": Attack(lambda secret: HANDSHAKE),
    "a websocket of another site": Attack(signed(**HANDSHAKE, Origin=EVIL)),
}


def ask(secret: Secret, attack: Attack) -> Answer:
    """Sends a request as it is, and nothing that a browser adds but the host."""
    path = attack.path.replace("{value}", secret.value)
    with closing(http.client.HTTPConnection("127.0.0.1", secret.port, timeout=30)) as connection:
        connection.request(attack.method, path, headers=dict(attack.headers(secret)))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


def get(secret: Secret, path: str, **headers: str) -> Answer:
    """What who knows the secret gets."""
    return ask(secret, Attack(signed(**headers), path=path))


def check_refused(answer: Answer) -> None:
    assert answer.status == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    assert not answer.headers["Set-Cookie"]


def check_let_in(secret: Secret) -> None:
    """The key becomes a cookie that no script and no other site has, and the address is clean."""
    status, headers, _ = ask(secret, Attack(nothing, path=f"/?key={secret.value}"))
    assert (status, headers["Location"]) == (303, "/")
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert cookie == secret.cookie["Cookie"]
    assert {"httponly", "samesite=strict"} <= {attribute.lower() for attribute in attributes}
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.fixture(scope="module")
def reached() -> list[str]:
    """What came through to the application behind the door."""
    return []


@pytest.fixture(scope="module")
def guarded(reached: list[str]) -> Iterator[Secret]:
    """A server of an application that lets everybody in, as Aim's does, behind the door."""

    async def answer(request: Request) -> PlainTextResponse:
        reached.append(request.url.path)
        return PlainTextResponse("inside")

    methods = ["GET", "POST", "DELETE", "OPTIONS"]
    app = Starlette(routes=[Route("/{path:path}", answer, methods=methods)])
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on")
    listener = config.bind_socket()
    secret = Secret.new(listener.getsockname()[1])
    config.app = Door(app, secret)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield secret
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_of_others_reaches_the_application(
    guarded: Secret, reached: list[str], name: str
) -> None:
    reached.clear()
    answer = ask(guarded, ATTACKS[name])
    check_refused(answer)
    if "websocket" not in name:
        assert answer.body.count(b"\n") == 1
    assert reached == []


def test_who_has_the_key_is_let_in_and_no_other_site_may_read_it(guarded: Secret) -> None:
    check_let_in(guarded)
    for headers in ({}, {"Origin": "http://127.0.0.1:{port}", "Sec_Fetch_Site": "same-origin"}):
        status, said, body = get(guarded, "/any", **headers)
        assert (status, body) == (200, b"inside")
        assert not [name for name in said if name.lower().startswith("access-control-")]


def test_the_other_name_of_the_host_is_let_in(guarded: Secret) -> None:
    host = {"Host": "localhost:{port}"}
    assert ask(guarded, Attack(signed(**host), path=f"/?key={guarded.value}")).status == 303
    assert get(guarded, "/any", **host).status == 200
    assert get(guarded, "/any", **host, Origin="http://localhost:{port}").status == 200


@pytest.mark.parametrize(
    "path", ["/api/runs/search/run/", "/api/runs/search/metric", "/anything", "//api/runs//search"]
)
@pytest.mark.parametrize("query", [QUERY, f"q=run.active&{QUERY}", f"{QUERY}&q=run.active"])
def test_a_program_is_refused_wherever_it_is_sent(
    guarded: Secret, reached: list[str], path: str, query: str
) -> None:
    reached.clear()
    status, _, body = get(guarded, f"{path}?{query}")
    said = json.loads(body)
    assert status == 400
    assert said["message"].endswith("; a query is a condition on runs")
    assert said["detail"].keys() == {"statement", "line", "offset", "end_offset"}
    assert reached == []


def test_a_part_of_a_name_is_no_query(guarded: Secret) -> None:
    assert get(guarded, "/api/experiments/search/?q=my%20sweep").status == 200
    assert get(guarded, "/api/runs/search/run/?q=my%20sweep").status == 400


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret.new(1)
    assert secret.value not in repr(secret)
    assert len({Secret.new(1).value for _ in range(10)}) == 10


# The same with Aim behind the door, as `platform dashboard` starts it.

COMMAND = "import sys; from platform_aim.dashboard import main; sys.exit(main(sys.argv[1:]))"


class Dashboard(NamedTuple):
    """A dashboard that is running."""

    process: psutil.Process
    secret: Secret
    folder: Path


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """The dashboard of one run, started in a folder of its own."""
    folder = tmp_path_factory.mktemp("project")
    about = About("tiny", {"process": "duo"}, {"process": {"tag": "mine"}}, {})
    tracker = Guarded.of(AimTracker, RunDirectory(folder / "runs" / "tiny"), about, RUN)
    tracker.log({"loss": 1.0}, step=1, subset="train")
    tracker.close()
    command = [sys.executable, "-c", COMMAND, "runs"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\?key=(\S+)", line)
        assert found, line
        yield Dashboard(psutil.Process(process.pid), Secret(int(found[1]), found[2]), folder)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def runs_found(secret: Secret, query: str, kind: str = "run") -> bytes:
    status, _, body = get(secret, f"/api/runs/search/{kind}/?{urlencode({'q': query})}")
    assert status == 200
    return body


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_aim_executes_and_deletes_nothing_for_others(dashboard: Dashboard, name: str) -> None:
    check_refused(ask(dashboard.secret, ATTACKS[name]))
    assert not (dashboard.folder / "pwned").exists()
    assert RUN.encode() in runs_found(dashboard.secret, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["run", "metric", "images", "texts", "figures", "audios", "distributions"]
)
def test_every_search_of_aim_takes_conditions_and_no_programs(
    dashboard: Dashboard, kind: str
) -> None:
    refused = get(dashboard.secret, f"/api/runs/search/{kind}/?{QUERY}")
    assert refused.status == 400
    assert not (dashboard.folder / "pwned").exists()
    found = runs_found(dashboard.secret, 'run.process.tag == "mine" and run.active == False', kind)
    assert (RUN.encode() in found) == (kind in {"run", "metric"})


@pytest.mark.slow
def test_who_has_the_key_uses_aim(dashboard: Dashboard) -> None:
    secret = dashboard.secret
    check_let_in(secret)
    page = get(secret, "/").body.decode()
    assert "<!doctype html>" in page
    [script] = re.findall(r'src="(/static-files/static/js/main[^"]*\.js[^"]*)"', page)
    status, headers, body = get(secret, script)
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert len(body) > 10_000
    assert json.loads(get(secret, "/api/projects/").body)["path"].startswith(str(dashboard.folder))
    chosen = 'metric.name == "loss" and metric.context.subset == "train"'
    assert RUN.encode() in runs_found(secret, chosen, "metric")
    mine = Attack(signed(Origin="http://127.0.0.1:{port}"), path="/api/projects/")
    assert not ask(secret, mine).headers["Access-Control-Allow-Origin"]


@pytest.mark.slow
def test_the_secret_is_told_to_nobody_and_one_port_is_open(dashboard: Dashboard) -> None:
    get(dashboard.secret, "/api/projects/")
    processes = [dashboard.process, *dashboard.process.children(recursive=True)]
    for process in processes:
        shown: list[Any] = [*process.cmdline(), *process.environ().values()]
        assert not [value for value in shown if dashboard.secret.value in value]
    sockets = {
        connection.laddr
        for process in processes
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert sockets == {("127.0.0.1", dashboard.secret.port)}
    for file in dashboard.folder.rglob("*"):
        assert not file.is_file() or dashboard.secret.value.encode() not in file.read_bytes()
