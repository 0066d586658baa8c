"""A web page that starts commands, and shows what becomes of them: Starlette and uvicorn (the extra ``web``).

    python examples/web_jobs.py [--port N] [--root DIR]

A request starts a job and returns; the browser holds nothing but its id. Every later request, whichever process of the
server gets it, asks `bossworker.jobs` by that id: status, streams, result files; or kills the job, or cleans it away.
The server may be restarted at any time, the jobs go on.

What may be started is a list of its own (here: ``extester.py``, and a few harmless commands): a page that runs whatever
a browser sends would be a shell for strangers. For the same reason every request needs a token, since any user of this
machine can reach the port. The server prints an address with the token in it; the browser that opens it gets a cookie.
(Programs send the header ``Authorization: Bearer TOKEN``; ``$WEB_JOBS_TOKEN`` is the token, if it is set.) Forms of
other pages are refused (by ``Origin`` and ``Sec-Fetch-Site``), and so is every host name but this machine's own, since
somebody could make another name point here. No other page may show this one in a frame. Each order has a line in the
log. All of this is `bossworker.web.Guard`, which stands before any ASGI app. (For a page of all jobs, tasks and pools,
that needs no program of your own, there is ``bossworker web``.)
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import logging
import os
import secrets
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote_to_bytes

from arguments import whole

from bossworker import jobs

try:
    import uvicorn
    from anyio import fail_after, sleep
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import (
        HTMLResponse,
        PlainTextResponse,
        RedirectResponse,
        Response,
        StreamingResponse,
    )
    from starlette.routing import Route

    from bossworker.web import Guard
except ImportError as error:
    raise SystemExit(f"web_jobs.py needs {error.name}, which comes with the extra web: pip install '.[web]'") from None

EXTESTER = str(Path(__file__).with_name("extester.py"))
PROGRAMS: dict[str, Callable[[list[str]], list[str]]] = {
    "extester": lambda args: [sys.executable, EXTESTER, *args],
    "date": lambda args: ["date", "-u"],
    "count to ten, slowly": lambda args: ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 1; done"],
}
TIMEOUT = 600  # seconds that a job may run
MOST_FORM_BYTES = 1 << 16
FORM_SECONDS = 10.0  # for a form to arrive
MOST_FOLLOWERS = 200  # streams at a time
LOOK_SECONDS = 0.2  # between looks for more, at a stream that is followed
CHUNK = 1 << 18  # bytes of it that are read at a time
SHOWN = 1 << 16  # bytes of a stream on a job's page, from its end
TOKEN = os.environ.get("WEB_JOBS_TOKEN") or secrets.token_urlsafe(32)
COOKIE = "web_jobs"

audit = logging.getLogger("web_jobs")

STYLE = """body { font: 16px sans-serif; margin: 2em auto; max-width: 60em }
td, th { text-align: left; padding-right: 1em }
pre { background: #eee; padding: 1em; overflow: auto } form { display: inline }"""
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>{style}</style><h1>{title}</h1>{body}</html>"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",  # what a job has written never runs as a page of ours
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def page(title: str, body: str) -> HTMLResponse:
    """A page. The body is HTML already, the title is not."""
    text = PAGE.format(title=html.escape(title), style=STYLE, body=body)
    return HTMLResponse(text.encode("utf-8", "replace"))  # arguments and files' names may be anything


def link(path: str, text: str) -> str:
    return f'<a href="{html.escape(quote(os.fsencode(path)))}">{html.escape(text)}</a>'


def button(path: str, text: str) -> str:
    return f'<form method="post" action="{html.escape(quote(path))}"><button>{html.escape(text)}</button></form>'


# -- pages ----------------------------------------------------------------------------------------------


def home(request: Request) -> Response:
    """A form to start a job, and a table of all there are."""
    options = "".join(f"<option>{html.escape(name)}</option>" for name in PROGRAMS)
    form = (
        f'<form method="post" action="/jobs"><select name="program">{options}</select> '
        '<input name="args" size="50" placeholder="--stdout hello --create a.txt=5 --sleep 3 --exit 5"> '
        "<button>Start</button></form>"
    )
    rows = "".join(
        f"<tr><td>{link(f'/jobs/{one}', one)}<td>{jobs.status(one)}</tr>" for one in reversed(jobs.listing())
    )
    return page("Jobs", f"<p>{form}<table><tr><th>job<th>status</tr>{rows}</table>")


async def start(request: Request) -> Response:
    """Start one; on to its page."""
    return await run_in_threadpool(_start, await _read_form(request))  # to split words may take long


def _start(body: bytes) -> Response:
    form = parse_qs(body.decode("utf-8", "replace"))
    program, text = form.get("program", [""])[0], form.get("args", [""])[0]
    if program not in PROGRAMS:
        return PlainTextResponse("no such program", 400)
    try:
        command = PROGRAMS[program](shlex.split(text))
        jobid = jobs.start(command, timeout=TIMEOUT, meta={"program": program})
        audit.info("started job=%s command=%r", jobid, command)
    except ValueError as error:
        return PlainTextResponse(str(error), 400)
    except OSError as error:
        return PlainTextResponse(f"cannot start it: {error}", 507)
    return RedirectResponse(f"/jobs/{jobid}", 303)


async def _read_form(request: Request) -> bytes:
    """The body, if it is small enough: how large it is to be is looked at before it is read."""
    size = request.headers.get("content-length", "0")
    if not size.isdecimal() or len(size) > 20 or int(size) > MOST_FORM_BYTES:
        raise HTTPException(413, f"a form must have at most {MOST_FORM_BYTES} bytes")
    body = b""
    try:
        with fail_after(FORM_SECONDS):
            async for part in request.stream():  # of a body whose size was not told, too
                body += part
                if len(body) > MOST_FORM_BYTES:
                    raise HTTPException(413, f"a form must have at most {MOST_FORM_BYTES} bytes")
    except TimeoutError:
        raise HTTPException(408, "the form did not arrive in time") from None
    return body


def show(request: Request) -> Response:
    """All about one job."""
    jobid = request.path_params["jobid"]
    told = jobs.info(jobid)
    if told is None:
        return PlainTextResponse("no such job", 404)
    path = f"/jobs/{jobid}"
    files = "".join(f"<li>{link(f'{path}/files/{name}', name)}" for name in jobs.result_list(jobid)) or "<li>none"
    lines = "".join(f"<li>{html.escape(line)}" for line in jobs.details(jobid))
    reload = "" if jobs.is_finished(jobid) else '<meta http-equiv="refresh" content="1">'
    body = (
        f"{reload}<p>{link('/', 'all jobs')}<p><code>{html.escape(shlex.join(told.args))}</code>"
        f'<p id="status"><b>{told.status}</b><ul>{lines}</ul>'
        f"{button(f'{path}/kill', 'Kill')} {button(f'{path}/clean', 'Clean')}"
        f"<h2>{link(f'{path}/stdout', 'stdout')}</h2><pre>{html.escape(jobs.stdout(jobid, offset=-SHOWN))}</pre>"
        f"<h2>{link(f'{path}/stderr', 'stderr')}</h2><pre>{html.escape(jobs.stderr(jobid, offset=-SHOWN))}</pre>"
        f"<h2>files</h2><ul>{files}</ul>"
    )
    return page(jobid, body)


# -- for programs, and for the links of the page ------------------------------------------------------------


def status(request: Request) -> Response:
    """The state and its details, as JSON; the same for an id that is unknown, whatever it is."""
    jobid = request.path_params["jobid"]
    told = {"status": jobs.status(jobid), "details": jobs.details(jobid), "files": jobs.result_list(jobid)}
    return Response(json.dumps(told), media_type="application/json")  # ASCII, whatever a file's name is


def stream(request: Request) -> Response:
    """stdout or stderr, as it comes, until the job has ended."""
    jobid, name = request.path_params["jobid"], request.path_params["stream"]
    if jobs.info(jobid) is None or name not in READERS:
        return PlainTextResponse("no such stream", 404)
    if len(followers) >= MOST_FOLLOWERS:
        return PlainTextResponse("too many follow streams already", 503)
    return StreamingResponse(_follow(request, jobid, READERS[name]), media_type="text/plain; charset=utf-8")


READERS = {"stdout": jobs.stdout, "stderr": jobs.stderr}
followers: set[Request] = set()


async def _follow(request: Request, jobid: str, read: Callable[..., bytes]) -> AsyncIterator[bytes]:
    """Look again and again: so nobody who waits takes a thread, and whoever hangs up is soon gone."""
    followers.add(request)
    offset = 0
    try:
        while not await request.is_disconnected():
            state = await run_in_threadpool(jobs.status, jobid)  # asked first: what comes last is read below
            while chunk := await run_in_threadpool(read, jobid, text=False, offset=offset, limit=CHUNK):
                yield chunk
                offset += len(chunk)
            if state not in ("created", "running"):  # it has ended, or has been cleaned away
                return
            await sleep(LOOK_SECONDS)
    finally:
        followers.discard(request)


def result(request: Request) -> Response:
    """One result file."""
    raw = request.scope["raw_path"].partition(b"/files/")[2]  # a name need not be UTF-8
    content = jobs.result(request.path_params["jobid"], os.fsdecode(unquote_to_bytes(raw)), text=False)
    if content is None:
        return PlainTextResponse("no such file", 404)
    return Response(content, media_type="application/octet-stream", headers={"Content-Disposition": "attachment"})


def kill(request: Request) -> Response:
    """End one."""
    jobid = request.path_params["jobid"]
    if jobs.info(jobid) is None:
        return PlainTextResponse("no such job", 404)
    audit.info("killed job=%s", jobid)
    jobs.signal(jobid)
    jobs.wait(jobid, 5)
    return RedirectResponse(f"/jobs/{jobid}", 303)


def clean(request: Request) -> Response:
    """Delete one."""
    try:
        if not jobs.clean(request.path_params["jobid"]):
            return PlainTextResponse("no such job", 404)
        audit.info("cleaned job=%s", request.path_params["jobid"])
    except OSError as error:  # it does not end, or somebody else's files are in it
        return PlainTextResponse(str(error), 409)
    return RedirectResponse("/", 303)


ROUTES = Starlette(
    routes=[
        Route("/", home),
        Route("/jobs", start, methods=["POST"]),
        Route("/jobs/{jobid}", show),
        Route("/jobs/{jobid}/status", status),
        Route("/jobs/{jobid}/kill", kill, methods=["POST"]),
        Route("/jobs/{jobid}/clean", clean, methods=["POST"]),
        Route("/jobs/{jobid}/files/{name:path}", result),
        Route("/jobs/{jobid}/{stream}", stream),
    ],
)


def main() -> None:
    """Serve this machine."""
    parser = argparse.ArgumentParser(description="A web page that starts commands.")
    parser.add_argument("--port", type=whole(0, 65535), default=8000, metavar="N", help="default: 8000")
    parser.add_argument("--root", metavar="DIR", help="where the job directories are")
    parser.add_argument("--read-only", action="store_true", help="only show")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    app = Guard(
        ROUTES,
        token=TOKEN,
        cookie=COOKIE,
        read_only=options.read_only,
        most_body=MOST_FORM_BYTES,
        headers=HEADERS,
        redirect=True,
    )
    if options.root:
        os.environ["BOSSWORKER_ROOT"] = os.path.abspath(options.root)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", options.port))
        listener.listen()  # before anybody is told the address
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/?token={TOKEN}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
