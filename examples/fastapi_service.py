"""A web service whose requests are computed by a pool: FastAPI and uvicorn.

    python examples/fastapi_service.py [--port N] [--workers N]
    uvicorn --app-dir examples fastapi_service:app --workers 3     # each process of the server has a pool of its own

The event loop stays free, however long a request computes. A client that hangs up cancels its job, also when it runs.
One that takes too long is stopped, and costs nobody else anything; so does a job that kills its worker. At TERM or
Ctrl-C the server takes no more requests, answers those that it has, and then ends the pool.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arguments import MAX_WORKERS, whole

from bossworker import AsyncBossWorker, BossDied, PoolClosed, Result

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request
except ImportError as error:
    raise SystemExit(f"fastapi_service.py needs {error.name}: pip install fastapi uvicorn") from None

TIMEOUT = 20.0  # seconds that a request may compute
MAX_PENDING = 1000  # requests that wait, beyond which others wait for room
HUNG_UP = 499  # the status for the log of a request whose client is gone; nobody receives it
STATUS = {"timeout": 504, "crash": 502, "exception": 500}
NO_SUCH_STATUS = 500

workers: int | None = None  # None: the CPUs


# -- in a worker ----------------------------------------------------------------------------------------


def count_primes(job: dict[str, int]) -> dict[str, int]:
    """The work handler: as slow as it is simple."""
    below = job["below"]
    return {"primes": sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))}


# -- in the server --------------------------------------------------------------------------------------


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The pool lives as long as the server takes requests, and until those that it took are through."""
    settings: dict[str, Any] = {"worker_count": workers, "global_timeout": TIMEOUT, "max_pending": MAX_PENDING}
    async with AsyncBossWorker(count_primes, **settings) as pool:
        app.state.pool = pool
        yield


app = FastAPI(title="Primes", lifespan=lifespan)


async def run(request: Request, job: dict[str, int]) -> Result:
    """A job's result, as long as the client waits for it."""
    pool: AsyncBossWorker = request.app.state.pool
    work = asyncio.create_task(pool.run(job))
    gone = asyncio.create_task(hung_up(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise HTTPException(HUNG_UP, "the client hung up")
        return work.result()
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def hung_up(request: Request) -> None:
    """Wait until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@app.get("/primes/{below}")  # type: ignore[untyped-decorator, unused-ignore]  # where FastAPI is not installed
async def primes(request: Request, below: int) -> dict[str, Any]:
    """How many primes there are."""
    try:
        result = await run(request, {"below": below})
    except (BossDied, PoolClosed) as error:
        raise HTTPException(503, str(error)) from error
    if not result.ok:
        raise HTTPException(STATUS.get(str(result.error_kind), NO_SUCH_STATUS), result.error)
    return {"below": below, **result, "seconds": result.duration}


@app.get("/stats")  # type: ignore[untyped-decorator, unused-ignore]
async def stats(request: Request) -> dict[str, int]:
    """What the pool does now."""
    now = await request.app.state.pool.stats()
    return {"queued": now.queued, "running": now.running, "done": now.done, "failed": now.failed}


def main() -> int:
    """Run the server; its exit code."""
    global workers
    parser = argparse.ArgumentParser(description="A web service whose requests are computed by a pool.")
    parser.add_argument("--port", type=whole(0, 65535), default=8000, metavar="N", help="0: any free one")
    parser.add_argument(
        "--workers",
        type=whole(1, MAX_WORKERS),
        metavar="N",
        help="of the pool (default: the CPUs that it may use)",
    )
    options = parser.parse_args()
    workers = options.workers
    uvicorn.run(app, host="127.0.0.1", port=options.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
