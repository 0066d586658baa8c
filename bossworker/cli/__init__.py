"""The command line: ``bossworker COMMAND``. It stands on what programs use, and on nothing private.

main.py           which command it is; each is loaded only when it is asked for

run: run_main.py (one run), run_arguments.py, quantities.py (its options), inputs.py, replacements.py, planning.py (from
arguments to jobs), runner.py, throttle.py, interrupts.py, halting.py (feeding the pool), outcomes.py, printers.py,
progress_line.py, summary.py, joblog.py, junit.py (what is told of jobs)
"""
