"""The journal: a queue that survives the program, the machine and the power.

``BossWorker(handler, journal="jobs.db")`` owns one; ``bossworker.journal.open("jobs.db")`` tells any process what is in
it.

    reader.py        open, and what it gives
    contents.py      the answers to its questions
    scribe.py        the process that owns the database, on the line between a program and its boss
    scribe_lines.py  that line; questions.py, the socket for readers
    job_lanes.py     jobs that are recorded, and not passed to the boss yet
    recovery.py      what an owner that is gone has left: which jobs never started, and which may have run
    flight_file.py   the file that tells it
    database.py      what is recorded, and in which form
    ownership.py     one owner at a time
    ranges.py        sets of job ids
"""

from bossworker.journal.reader import JobStatus, Journal, JournalJob, open

__all__ = ["JobStatus", "Journal", "JournalJob", "open"]


def __dir__() -> list[str]:
    return sorted(__all__)
