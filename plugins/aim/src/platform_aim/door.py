"""The door of the dashboard: an ASGI application around Aim's, which has no door of its own.

Aim's answers whoever asks, from any web page (CORS `*` with credentials) and under any host name,
evaluates the queries that it is sent, and deletes runs. Here a visitor has to know the secret:

    GET /?key=SECRET        a cookie, and on to /
    with the cookie         Aim's interface, with queries that `queries.check` passes
    anything else           403 and one line

The cookie alone would not do: a page of another site, of another port of this machine, or of a name
that someone lets point to this machine, is refused by what the browser says of it (Origin,
Sec-Fetch-Site, Host). Run by uvicorn in a child process of `platform dashboard`.
"""

import sys
from http import HTTPStatus
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from platform_aim.queries import QueryError, check
from platform_aim.secret import HOST, Secret

NAME_SEARCHES = {
    f"/api/{kind}/search{slash}" for kind in ("experiments", "tags") for slash in ("", "/")
}
"""Where `q` is a part of a name, and no query."""

OWN_SITES = {"same-origin", "none"}
"""Sec-Fetch-Site of the dashboard's own pages, and of an address that a person opened."""

PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class Door:
    """Lets visitors who know the secret in to an application.

    Args:
        app: Aim's.
        secret: what visitors have to know, and the port that they come to.
    """

    def __init__(self, app: ASGIApp, secret: Secret) -> None:
        self._app, self._secret = app, secret
        self._hosts = {f"{name}:{secret.port}" for name in (HOST, "localhost")}
        if secret.port == 80:  # browsers leave it out
            self._hosts |= {HOST, "localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or has the application answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        answer = self._answer(HTTPConnection(scope))
        if answer is None:
            await self._app(scope, receive, _without_cors(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send)

    def _answer(self, request: HTTPConnection) -> Response | None:
        """What the door itself says; None where the application is to answer."""
        foreign = self._foreign(request)
        if foreign:
            return _refusal(foreign)
        if self._brings_key(request):
            return self._cookie()
        if not self._secret.is_(request.cookies.get(self._secret.cookie_name, "")):
            return _refusal("open the address that `platform dashboard` printed, with its key")
        return _check_queries(request)

    def _foreign(self, request: HTTPConnection) -> str | None:
        """Why a request is none of this dashboard's pages; None where it may be."""
        headers = request.headers
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return (
                f"this dashboard is http://{HOST}:{self._secret.port} and answers under no other "
                "name or port; a tunnel needs the same port at both ends"
            )
        if set(headers.getlist("origin")) - {f"http://{hosts[0]}"}:
            return "pages of other origins may not use this dashboard"
        if set(headers.getlist("sec-fetch-site")) - OWN_SITES:
            return "this dashboard cannot be opened from another page; open its address yourself"
        return None

    def _brings_key(self, request: HTTPConnection) -> bool:
        scope = request.scope
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            return False
        keys = request.query_params.getlist("key")
        return len(keys) == 1 and self._secret.is_(keys[0])

    def _cookie(self) -> Response:
        """A cookie for who brings the key, and on to the address without it."""
        name, value = self._secret.cookie_name, self._secret.value
        answer = RedirectResponse("/", HTTPStatus.SEE_OTHER, PRIVATE)
        answer.set_cookie(name, value, httponly=True, samesite="strict")
        return answer


def _refusal(reason: str) -> Response:
    return PlainTextResponse(f"{reason}\n", HTTPStatus.FORBIDDEN, PRIVATE)


def _check_queries(request: HTTPConnection) -> Response | None:
    """A refusal as Aim words one of its own, so that its interface shows it."""
    if request.scope["path"] in NAME_SEARCHES:
        return None
    for query in request.query_params.getlist("q"):
        try:
            check(query)
        except QueryError as error:
            where: dict[str, Any] = {"statement": query, "line": error.line}
            where |= {"offset": error.offset, "end_offset": error.offset}
            said = {"message": str(error), "detail": where}
            return JSONResponse(said, HTTPStatus.BAD_REQUEST, PRIVATE)
    return None


def _without_cors(send: Send) -> Send:
    """Sends what Aim sends, but for the headers by which it lets other sites read it."""

    async def send_without(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            kept = [pair for pair in headers if not pair[0].lower().startswith(b"access-control-")]
            message = {**message, "headers": kept}
        await send(message)

    return send_without


def aim_behind_door() -> Door:
    """Aim's application behind a door whose port and secret are a line each of standard input.

    Not arguments, which all users of a machine can read, and not the environment, which processes
    pass on.
    """
    port, value = sys.stdin.read().split()
    from aim.web.run import app

    return Door(app, Secret(int(port), value))
