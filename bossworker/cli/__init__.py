"""The command line: ``bossworker COMMAND``. It stands on what programs use, and on nothing private.

main.py           which command it is; each is loaded only when it is asked for

run: run_start.py (forks a host_process.py first), run_main.py (one run), run_options.py, quantities.py (its options),
run_arguments.py (its command line), run_parser.py (the same for argparse, where that is needed), inputs.py,
replacements.py, planning.py (from arguments to jobs), runner.py, throttle.py, interrupts.py, halting.py (feeding a
crew), run_later.py, crews.py, command_crew.py, function_crew.py (who runs the jobs), outcomes.py, printers.py,
json_text.py, progress_line.py, summary.py, reruns.py, dry_run.py, joblog.py, junit.py (what is told of jobs),
run_journal.py, cell_book.py (``--journal``), earlier_runs.py (``--resume``), result_files.py (``--results``)

add: queue_commands.py, queue_files.py (what is on the disk), spooler.py (the process that runs them), room.py (a
disk that is full)

jobs and tasks: detached.py (start, retry, clean), looking.py (ps, show, log, stack), steering.py (wait, kill, pause,
resume, send), on entries.py (the one form that all have: job_entries.py, task_entries.py, pool_entries.py),
command_list.py (commands, those that wait in queues too), selecting.py (which ones are meant), text_cells.py (how wide
a text is in a table), command_parser.py (and argument_parser.py, which `run` has too)

top.py, top_board.py (what is shown), top_screen.py (on a whole terminal);  web_command.py

doctor.py

shells.py (completion), manual_page.py, on parsers.py: `data/` is made of them
"""
