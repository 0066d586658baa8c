"""How requests are answered: in a thread, by JSON, with a status that fits; and how orders are noted in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from anyio import fail_after
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bossworker.cli.entries import EntryError
from bossworker.errors import BossWorkerError
from bossworker.web.plain_json import to_json
from bossworker.web.watched_journal import JournalAway
from bossworker.web.watched_pool import PoolAway

BODY_SECONDS = 10.0  # for a request to arrive

audit = logging.getLogger("bossworker.web")

Answer = Callable[[Request], Awaitable[Response]]


class Json(JSONResponse):
    """An answer, by `to_json`."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return to_json(content).encode()


def answering(call: Callable[..., Any], reads_body: bool = False) -> Answer:
    """An endpoint: what `call` returns for a request, as JSON; it runs in a thread, since it may have to wait."""

    async def answer(request: Request) -> Response:
        arguments = [request, await read_json(request)] if reads_body else [request]
        try:
            found = await run_in_threadpool(call, *arguments)
        except (PoolAway, JournalAway, OSError) as error:  # a pool that does not answer in time, among others
            return Json({"error": str(error)}, 503)
        except (BossWorkerError, EntryError, RuntimeError) as error:
            return Json({"error": str(error)}, 409)
        except (ValueError, TypeError, KeyError) as error:
            return Json({"error": f"that makes no sense: {error}"}, 400)
        if found is None:
            return Json({"error": "there is no such thing, or not any more"}, 404)
        return found if isinstance(found, Response) else Json(found)

    return answer


async def read_json(request: Request) -> dict[str, Any]:
    """The body; the guard has bounded it. HTTPException."""
    try:
        with fail_after(BODY_SECONDS):
            told = json.loads(await request.body() or b"{}")
    except TimeoutError:
        raise HTTPException(408, "the request did not arrive in time") from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body must be JSON") from None
    if not isinstance(told, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return told


def who(request: Request) -> str:
    """Whoever has sent this, for the log."""
    client = request.client
    return "the page" if client is None or not client.host else f"the page, from {client.host}:{client.port}"


@contextmanager
def noted(request: Request, order: str, **facts: object) -> Iterator[dict[str, object]]:
    """A line in the log for an order, whatever becomes of it; what is added to these facts is told, too."""
    try:
        yield facts
    except Exception as error:
        facts["refused"] = str(error)
        raise
    finally:
        told = " ".join(f"{name}={value!r:.100}" for name, value in facts.items())
        audit.info("%s", f"order={order} {told} by={who(request)!r}")
