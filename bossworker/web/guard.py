"""Who may see the page: those with its token, by the names that it is known by, and no other page on their behalf.

The loopback address is every user's of the machine: so there is a token, which comes in the address that is opened
first and stays in a cookie, or in the header ``Authorization: Bearer``. The name in ``Host`` is checked, since anybody
may make a name point here; and ``Origin`` and ``Sec-Fetch-Site`` are, by which browsers tell that a request is another
page's idea.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 1 << 20  # bytes of a request
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",  # what a job has written never runs as a page of ours
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_READING = ("GET", "HEAD")


class Guard:
    """Stands before an ASGI app.

    Args:
        token: None: whoever comes may; something around the app has looked at them.
        cookie: The name of the cookie: cookies of one host are sent to all its ports, so two pages need two names.
        hosts: Names, without ports, by which it may be called; None: any.
        read_only: Nothing but GET and HEAD.
        most_body: Bytes of a request.
        headers: Of all answers.
        redirect: Send a browser on to the address without the token: for pages without a script that removes it. (One
            that follows a link from another page has no cookie then, and is refused: it has to load the page again.)
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        cookie: str,
        hosts: Iterable[str] | None = LOOPBACK,
        read_only: bool = False,
        most_body: int = MOST_BODY,
        headers: Mapping[str, str] = HEADERS,
        redirect: bool = False,
    ) -> None:
        self._app = app
        self._token = token
        self._cookie = cookie
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._read_only = read_only
        self._most_body = most_body
        self._headers = headers
        self._redirect = redirect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        given = request.query_params.get("token", "")
        refused = self._refusal(request, given)

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                if refused is None and self._is_token(given):
                    headers.append("set-cookie", self._set_cookie(request))
            await send(message)

        answer = refused or self._app
        if refused is None and self._redirect and self._is_token(given):
            answer = RedirectResponse(request.url.path, 303)
        await answer(scope, self._bounded(receive), guarded_send)

    def _refusal(self, request: Request, given: str) -> Response | None:
        """The answer to a request that is not to be seen to; None when it is."""
        if not self._is_known_as(request.headers.get("host", "")):
            return PlainTextResponse("this page is not known by that name: open it as localhost", 403)
        if not self._may(request, given):
            text = "a token is needed: open the address that was printed as this page was started, with ?token= in it"
            return PlainTextResponse(text, 403)
        if not is_from_here(request):
            return PlainTextResponse("not from this page", 403)
        if self._read_only and request.method not in _READING:
            return PlainTextResponse("this page is read-only", 403)
        size = request.headers.get("content-length", "0")
        if not size.isdecimal() or len(size) > 20 or int(size) > self._most_body:
            return PlainTextResponse(f"a request must have at most {self._most_body} bytes", 413)
        return None

    def _is_known_as(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        return self._hosts is None or (name if name and port.isdecimal() else host).lower() in self._hosts

    def _may(self, request: Request, given: str) -> bool:
        if self._token is None:
            return True
        if given:  # it is what the person has opened: a wrong one is not to pass by an older cookie
            return self._is_token(given)
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self._is_token(bearer or request.cookies.get(self._cookie, ""))

    def _is_token(self, text: str) -> bool:
        return self._token is not None and hmac.compare_digest(text.encode("utf-8", "replace"), self._token.encode())

    def _set_cookie(self, request: Request) -> str:
        path = request.scope.get("root_path") or "/"
        secure = "; Secure" if request.url.scheme == "https" else ""
        return f"{self._cookie}={self._token}; Path={path}; HttpOnly; SameSite=Strict{secure}"

    def _bounded(self, receive: Receive) -> Receive:
        """A body whose size was not told is bounded, too."""
        taken = 0

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most_body:
                raise HTTPException(413, f"a request must have at most {self._most_body} bytes")
            return message

        return receive_some


def is_from_here(request: Request) -> bool:
    """Whether a request is of a page of ours, of no browser, or of a person who follows a link to read something."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        return False
    if site in (None, "same-origin", "none"):
        return True
    followed = request.headers.get("sec-fetch-mode") == "navigate", request.headers.get("sec-fetch-dest") == "document"
    return request.method in _READING and all(followed)
