"""The page: pools, jobs and tasks, to be looked at and steered in a browser; in the extra ``web``.

bossworker web                      a process of its own: all pools of this user that have a door, jobs and tasks
pool.web()                          the same for one pool, beside its program
app = bossworker.web.app(pool)      in a program's own ASGI server: Mount("/pool", app)

application.py, serving.py, page_process.py    put together, and served
guard.py, connections.py                       who may
routes.py, page_orders.py, snapshots.py         what is asked for, what is done, and what comes by itself
request_parts.py, answering.py, plain_json.py   what requests hold, and how they are answered
page_sources.py                                what they are about
watch_room.py, watched_pool.py                 the pools that are watched, by one look a quarter of a second each
job_table.py, job_queries.py, worker_lanes.py, pool_history.py    what has been seen of one: its jobs, which worker had
                                               them when, and its last minutes
job_insides.py, process_usage.py, job_texts.py    a job: what it is, what it writes, and what it takes
command_jobs.py, task_list.py, watched_journal.py    job directories, tasks and journals
assets/                                        what the browser loads: no build step, nothing from elsewhere
"""

try:
    import starlette  # noqa: F401
except ImportError as error:
    text = "bossworker.web needs starlette: pip install 'bossworker[web]'"
    raise ImportError(text, name=error.name) from error

from bossworker.web.application import Page, app
from bossworker.web.guard import Guard

__all__ = ["Guard", "Page", "app"]


def __dir__() -> list[str]:
    return sorted(__all__)
