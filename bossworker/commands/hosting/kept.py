"""What failed gets a job directory, so that people can look at it, and `bossworker retry` can start it again."""

from __future__ import annotations

import os
from typing import Any

from bossworker.commands import ended_job, jobdir
from bossworker.commands.hosting.hosting_wire import HostedJob, HostSettings
from bossworker.commands.request import Request
from bossworker.commands.roots import make_root
from bossworker.system import identity


def keep(jobid: str, job: HostedJob, settings: HostSettings, status: dict[str, Any], streams: tuple[int, ...]) -> str:
    """Make it, with all that there is to say; its id. Empty when there is no room for it."""
    request = Request(
        argv=job.argv,
        shell=settings.shell,
        stdin=None,
        env={**settings.env, **job.env},
        cwd=job.cwd,
        timeout=settings.timeout,
        meta={},
        memory=settings.memory,
    )
    try:
        root = make_root()
    except (OSError, RuntimeError):
        return ""
    try:
        record = {**request.record(), "supervisor": identity.own()}
        ended_job.keep(root, jobid, record, status, dict(zip((jobdir.STDOUT, jobdir.STDERR), streams, strict=False)))
    except OSError:
        return ""
    finally:
        os.close(root)
    return jobid
