"""The boss's records of what happens in a pool: their kinds and layouts. `pool_events.py` makes events of them."""

from __future__ import annotations

# Kinds of the boss's records. Each record is: kind, number of its first event, events; then
QUEUED = "queued"  # first id, when
STARTED = "started"  # id, attempt, pid, when
ENDED = "ended"  # first id, jobs, attempt, pid, id whose start is told already (or -1), times (hex), outcomes (hex)
PROGRESS = "progress"  # id, pid, done, total, text, when
LOG = "log"  # id or None, pid, stream, text, when
UP = "up"  # pid, when
DOWN = "down"  # pid, reason, orderly, when
MEMORY = "memory"  # resident bytes by index of worker, when; no event, but a counter of traces

FROM_NOW = (1 << 64) - 1  # in place of a number: no event that has happened by now
