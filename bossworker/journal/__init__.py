"""The journal: a queue that survives the program, the machine and the power.

``BossWorker(handler, journal="jobs.db")`` owns one; ``bossworker.journal.open("jobs.db")`` tells any process what is in
it.

    reader.py        open, and what it gives
    answers.py       how it is asked; contents.py, the answers
    scribe.py        the owner of the database, on the line between a program and its boss
    scribe_process.py  its process: the journal is taken over, served, and given back
    caller_side.py   the program's end of that line; boss_side.py, the boss's; line_side.py, what both have
    whole_payloads.py  large payloads on them
    questions.py     the socket for readers
    adding_side.py   what is common to the lines over which it gets jobs;  door_side.py, door_jobs.py: those of doors;
                     client_table.py: their clients
    job_lanes.py     jobs that are recorded, and not passed to the boss yet
    recovery.py      what an owner that is gone has left: which jobs never started, and which may have run
    handing_over.py  that, on its way to the program
    flight_file.py   the file that tells it
    resuming.py      jobs that are added again
    database.py      the connection; schema.py says which tables there are
    jobs_table.py, results_table.py, keys_table.py, id_tables.py
    row_sums.py      whether a row is as it was written
    listing.py       all jobs, as runs of ids
    payload_files.py  large payloads, which are in files
    forgetting.py    what is forgotten by itself
    file_check.py    a look at a file before it is touched;  log_check.py, at its write-ahead log
    ownership.py     one owner at a time
    ranges.py        sets of job ids
    run_database.py  the journal of ``bossworker run``
    run_contents.py  the answers to questions on that;  run_recovery.py: what a run that is gone has left
"""

from bossworker.journal.reader import Journal, JournalJob, open

__all__ = ["Journal", "JournalJob", "open"]


def __dir__() -> list[str]:
    return sorted(__all__)
