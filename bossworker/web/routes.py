"""What the page asks for: JSON. Nothing in here is HTML."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bossworker.journal.answers import STATUSES as JOURNAL_STATUSES
from bossworker.web import page_orders
from bossworker.web.answering import answering
from bossworker.web.page_sources import PageSources
from bossworker.web.pool_history import FIELDS
from bossworker.web.request_parts import MOST_TEXT, number, offset_of, part_of, query_of, stream_of, whole
from bossworker.web.watched_pool import PoolAway
from bossworker.web.worker_lanes import lanes

LONGEST_WINDOW = 24 * 3600.0  # seconds of a timeline


class Routes:
    """What can be asked for."""

    def __init__(self, sources: PageSources) -> None:
        self._sources = sources

    def all(self) -> list[Route]:
        """All of them."""
        looks = {
            "/api/jobs/{pool}": self.jobs,
            "/api/jobs/{pool}/{id}": self.job,
            "/api/jobs/{pool}/{id}/stack": self.stack,
            "/api/jobs/{pool}/{id}/lines": self.lines,
            "/api/jobs/{pool}/{id}/output": self.output,
            "/api/pools/{pool}/history": self.history,
            "/api/pools/{pool}/timeline": self.timeline,
            "/api/pools/{pool}/stack": self.stack,
            "/api/pools/{pool}/trace": self.trace,
            "/api/commands": self.commands,
            "/api/commands/{id}": self.command,
            "/api/commands/{id}/output": self.command_output,
            "/api/commands/{id}/stack": self.command_processes,
            "/api/tasks": lambda request: {"tasks": self._sources.tasks.listing()},
            "/api/tasks/{id}": lambda request: self._sources.tasks.describe(request.path_params["id"]),
            "/api/tasks/{id}/output": self.task_output,
            "/api/tasks/{id}/messages": self.task_messages,
            "/api/journals/{journal}": self.journal_jobs,
            "/api/journals/{journal}/{id}": self.journal_job,
            "/metrics": self.metrics,
        }
        orders = {
            "/api/pools/{pool}/{order}": page_orders.steer_pool,
            "/api/jobs/{pool}/{order}": page_orders.steer_jobs,
            "/api/commands/{order}": page_orders.steer_commands,
            "/api/tasks/{id}/{order}": page_orders.steer_task,
            "/api/journals/{journal}/{order}": page_orders.steer_journal,
        }
        ordered = {path: partial(call, self._sources) for path, call in orders.items()}
        return [
            *(Route(path, answering(call)) for path, call in looks.items()),
            *(Route(path, answering(call, reads_body=True), methods=["POST"]) for path, call in ordered.items()),
        ]

    # -- pools and their jobs -------------------------------------------------------------------------------

    def jobs(self, request: Request) -> dict[str, Any]:
        """A part of the list."""
        return self._sources.pool(request).find(query_of(request.query_params), *part_of(request))

    def job(self, request: Request) -> dict[str, Any] | None:
        """All about one."""
        return self._sources.pool(request).job(whole(request.path_params["id"]))

    def lines(self, request: Request) -> dict[str, Any]:
        """What one has printed and logged, from a line on."""
        job_id, since = whole(request.path_params["id"]), whole(request.query_params.get("since", 0))
        return self._sources.pool(request).lines(job_id, since)

    def output(self, request: Request) -> dict[str, Any] | None:
        """What one that is a command has written, from a byte on."""
        given, job_id = request.query_params, whole(request.path_params["id"])
        return self._sources.pool(request).output(job_id, stream_of(given), offset_of(given))

    def stack(self, request: Request) -> dict[str, Any]:
        """Of a job, or of all workers."""
        job_id = request.path_params.get("id")
        wanted = None if job_id is None else whole(job_id)
        return {"text": self._sources.pool(request).order(lambda operator: operator.stack(wanted))}

    def history(self, request: Request) -> dict[str, Any]:
        """The points of the charts so far."""
        return {"fields": FIELDS, "points": list(self._sources.pool(request).history.points)}

    def timeline(self, request: Request) -> dict[str, Any]:
        """Which worker had which jobs, between two times."""
        pool = self._sources.pool(request)
        until = number(request.query_params.get("until")) or time.time()
        since = max(until - LONGEST_WINDOW, number(request.query_params.get("since", until - 60)))
        with pool.lock:
            drawn = lanes(reversed(pool.table.stretches), since, until)
        return {"since": since, "until": until, "lanes": drawn}

    def trace(self, request: Request) -> Response | None:
        """The last events for ui.perfetto.dev."""
        pool = self._sources.pool(request)
        handle = pool.handle
        if handle is None:
            raise PoolAway(f"pool {pool.name} is away: {pool.why_away}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "trace.json")
            handle.trace(path)
            name = 'attachment; filename="trace.json"'  # whatever the pool is called
            return Response(path.read_bytes(), media_type="application/json", headers={"Content-Disposition": name})

    def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        try:
            from prometheus_client import CollectorRegistry, generate_latest

            from bossworker.metrics import collector
        except ImportError as error:
            raise HTTPException(501, str(error)) from None
        registry = CollectorRegistry()
        handles = [pool.handle for pool in self._sources.room.pools if pool.handle is not None]
        registry.register(collector(*handles))
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    # -- journals -------------------------------------------------------------------------------------------

    def journal_jobs(self, request: Request) -> dict[str, Any]:
        """A part of the list."""
        return self._sources.journal(request).find(query_of(request.query_params, JOURNAL_STATUSES), *part_of(request))

    def journal_job(self, request: Request) -> dict[str, Any] | None:
        """All about one."""
        journal = self._sources.journal(request)
        found = journal.job(whole(request.path_params["id"]))
        return None if found is None else {**found, "journal": journal.name, "owner": journal.owner}

    # -- commands and tasks ---------------------------------------------------------------------------------

    def commands(self, request: Request) -> dict[str, Any]:
        """A part of the list."""
        given = request.query_params
        return self._sources.commands.find(
            given.get("status", ""), given.get("text", "")[:MOST_TEXT], *part_of(request)
        )

    def command(self, request: Request) -> dict[str, Any] | None:
        """All about one."""
        return self._sources.commands.detail(request.path_params["id"])

    def command_output(self, request: Request) -> dict[str, Any] | None:
        """What one has written, from a byte on."""
        given = request.query_params
        return self._sources.commands.output(request.path_params["id"], stream_of(given), offset_of(given))

    def command_processes(self, request: Request) -> dict[str, Any]:
        """What one has running."""
        return {"text": self._sources.commands.processes(request.path_params["id"])}

    def task_output(self, request: Request) -> dict[str, Any] | None:
        """What one has written, from a byte on."""
        given = request.query_params
        return self._sources.tasks.output(request.path_params["id"], stream_of(given), offset_of(given))

    def task_messages(self, request: Request) -> dict[str, Any] | None:
        """What one has sent as ``data``, from a message on."""
        return self._sources.tasks.messages(request.path_params["id"], offset_of(request.query_params))
