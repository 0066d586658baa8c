"""``bossworker run``: from the command line to the exit status."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property

from bossworker.cli import printers
from bossworker.cli.command_crew import CommandCrew
from bossworker.cli.crews import Crew
from bossworker.cli.halting import OTHER, RunTally
from bossworker.cli.inputs import InputError, Inputs
from bossworker.cli.interrupts import Interrupts, Stopped
from bossworker.cli.outcomes import Ended, Planned
from bossworker.cli.planning import CommandPlanner, FunctionPlanner, LinePlanner, UsageError, load_function
from bossworker.cli.progress_line import ProgressLine, colours, is_terminal
from bossworker.cli.quantities import shortened
from bossworker.cli.run_arguments import parse_run
from bossworker.cli.run_options import RunOptions
from bossworker.cli.runner import Feed, Planner, Runner
from bossworker.cli.throttle import Throttle
from bossworker.commands.hosting.hosting_wire import HostSettings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bossworker.cli.host_process import HostProcess
    from bossworker.cli.joblog import Begun, Joblog
    from bossworker.cli.replacements import Row
    from bossworker.cli.reruns import Reruns
    from bossworker.cli.run_journal import RunJournal
    from bossworker.cli.summary import Summary

_SLOWEST_IN_CI = 10


def main(argv: Sequence[str], host: HostProcess | None = None) -> int:
    """The exit status. `host`: the process that is to run the commands, if it is forked already."""
    options = parse_run(argv)
    try:
        return RunCommand(options, argv, host).run()
    except BrokenPipeError:
        raise
    except _what_is_told_in_a_line() as error:
        printers.say(f"bossworker run: {shortened(str(error))}")
    return OTHER


def _what_is_told_in_a_line() -> tuple[type[Exception], ...]:
    from bossworker.cli.joblog import JobLogError
    from bossworker.errors import JournalError

    return InputError, JobLogError, JournalError, OSError, UsageError


class RunCommand:
    """One run, with all that is open for it."""

    def __init__(self, options: RunOptions, argv: Sequence[str], host: HostProcess | None = None) -> None:
        self._options = options
        self._host = host
        self._argv = argv
        self._name = f"run-{os.urandom(3).hex()}"
        self._folder = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"bossworker-{self._name}-{os.getpid()}")
        self._in_actions = os.environ.get("GITHUB_ACTIONS") == "true"
        self._folded = self._in_actions and options.how == "group" and not options.stdout_is_data
        self._can_be_read_again = True
        self._names: Sequence[str] = ()  # of the arguments
        self._planner, self._feed = self._prepare()
        self._tally = RunTally(options.halt, self._count)
        self._progress = ProgressLine(is_terminal(2) and not options.quiet, self._tally)
        self._log: Joblog | None = None
        self._begun: Begun | None = None
        self._journal: RunJournal | None = None
        self._printer: printers.Printer = printers.Nothing()
        self._in_order: printers.InOrder | None = None
        self._on_end: list[Callable[[Ended], None]] = []

    # -- before it begins -------------------------------------------------------------------------------

    def _prepare(self) -> tuple[Planner, Feed]:
        options = self._options
        if options.joblog and self._log_goes_on:
            from bossworker.cli import joblog

            joblog.check(options.joblog, there=options.retry_failed)
        if options.retry_failed:
            from bossworker.cli import joblog

            failures = [(one.seq, one.command) for one in joblog.failures(options.joblog or "")]
            self._count: int | None = len(failures)
            return LinePlanner(CommandPlanner(options, [])), Feed(iter(failures), None)
        inputs = self._inputs()
        self._count, self._names = inputs.total(), inputs.names
        self._can_be_read_again = inputs.can_be_read_again
        if options.function is not None:
            return FunctionPlanner(options, inputs.names), Feed(inputs, None)
        return CommandPlanner(options, inputs.names), Feed(inputs, self._left_out())

    @property
    def _log_goes_on(self) -> bool:
        options = self._options
        again = options.resume or options.resume_failed or options.retry_failed
        return options.joblog_grows or (again and not options.journal)

    def _inputs(self) -> Inputs:
        options = self._options
        inputs = Inputs(
            options.sources,
            delimiter=options.delimiter_bytes,
            columns="\t" if options.colsep is None and options.header else options.colsep,
            header=options.header not in (None, "0"),
            per_job=options.per_job,
            trim=options.trim or ("n" if options.colsep is None else "lr"),
            whole=options.halt.percent,
        )
        if options.header == "0":
            inputs.name_by_files()
        return inputs

    def _left_out(self) -> Callable[[Row, str], bool] | None:
        """What of it an earlier run has done."""
        options = self._options
        if options.journal or not (options.resume or options.resume_failed):
            return None
        from bossworker.cli.earlier_runs import MOST_COUNTED, Earlier

        earlier = Earlier(options, self._names)
        if earlier and self._can_be_read_again and (self._count or 0) <= MOST_COUNTED:
            self._count = earlier.count_left(self._inputs())
        return earlier.leaves_out if earlier else None

    # -- the run ----------------------------------------------------------------------------------------

    def run(self) -> int:
        if self._options.dry_run:
            return self._print_only()
        with ExitStack() as stack, Interrupts() as interrupts:
            stack.callback(self._remove_folder)
            stack.callback(self._feed.close)
            self._open(stack)
            try:
                self._run_and_tell(interrupts)
            except Stopped:  # amid the last words
                pass
            return interrupts.exit_status if interrupts.count else self._tally.exit_status

    def _run_and_tell(self, interrupts: Interrupts) -> None:
        stopped = self._run_crew(interrupts)
        self._printer.close()
        self._progress.clear()
        if self._begun is not None and not self._summary.interrupted and not stopped:
            self._begun.end()
        if not self._options.quiet:
            self._tell(interrupts, stopped)

    def _print_only(self) -> int:
        from bossworker.cli.dry_run import print_planned

        with ExitStack() as stack:
            stack.callback(self._feed.close)
            if self._options.journal and os.path.exists(self._options.journal):
                self._open_journal(self._options.journal, stack, keep=False)
            print_planned(self._feed, self._planner, self._options.json)
        return 0

    def _open(self, stack: ExitStack) -> None:
        options = self._options
        if options.journal:
            self._open_journal(options.journal, stack)
        if options.joblog:
            from bossworker.cli import joblog

            self._log = joblog.Joblog(options.joblog, self._log_goes_on)
            stack.callback(self._log.close)
            if options.function is None and not options.journal and self._log.is_file:
                self._begun = joblog.Begun(options.joblog)
                stack.callback(self._begun.close)
                self._begun.begin()
            self._on_end.append(self._log.add_ended)
        self._printer = self._make_printer()
        if options.junit:
            from bossworker.cli.junit import JUnitReport

            report = JUnitReport(options.junit)
            stack.callback(report.close)
            self._on_end.append(report.add)

    def _open_journal(self, path: str, stack: ExitStack, keep: bool = True) -> None:
        from bossworker.cli import run_journal

        options = self._options
        if options.resume_failed and not os.path.exists(path):
            raise UsageError(f"--resume-failed: there is no journal {path!r} yet")
        again = run_journal.Again(options.resume_failed, options.resume_failed or options.interrupted == "rerun")
        self._journal = journal = run_journal.RunJournal(path, again, self._planner.key)
        stack.callback(journal.close, keep)
        self._feed.leaves_out = self._leave_out
        if (told := journal.words()) and not options.quiet:
            printers.say(f"going on with {path}: {told}")

    def _leave_out(self, row: Row, text: str) -> bool:
        """Whether the journal has it. Then it is told of as the earlier run would have."""
        assert self._journal is not None
        ended = self._journal.meet(row, text)
        if ended is None:
            return False
        self._tally.known += 1
        self._tally.known_failed += not ended.ok
        for one in self._on_end:
            one(ended)
        if not ended.ok:
            self._summary.add(ended)
            if self._options.json or self._folded:
                (self._printer if self._in_order is None else self._in_order.inner).show(ended)
        return True

    def _make_printer(self) -> printers.Printer:
        options, before = self._options, self._progress.clear
        printer: printers.Printer = printers.Nothing()
        if options.json:
            printer = printers.JsonLines(before, options.function is not None)
        elif options.function is not None:
            printer = printers.Answers(before)
        elif options.results:
            printer = self._result_files(options.results)
        elif options.how == "group":
            printer = printers.Grouped(before)
        if self._folded:
            printer = printers.Folded(printer, before)
        if options.keep_order:
            printer = self._in_order = printers.InOrder(printer, self._folder)
        return printer

    def _result_files(self, name: str) -> printers.Printer:
        from bossworker.cli import result_files

        options = self._options
        repeat, append = options.repeated is not None, bool(options.journal)
        return result_files.printer(name, self._names, repeat, append, self._progress.clear)

    def _run_crew(self, interrupts: Interrupts) -> bool:
        """Whether it was ended by force."""
        crew = self._functions() if self._options.function is not None else self._commands()
        try:
            self._runner(crew).run(interrupts)
            crew.close(force=bool(interrupts.count))
        except Stopped:
            crew.close(force=True)
            return True
        except BaseException:
            crew.close(force=True)
            raise
        return False

    def _runner(self, crew: Crew) -> Runner:
        options = self._options
        throttle = Throttle(options.delay, options.load, options.memfree, os.cpu_count() or 1)
        return Runner(
            options,
            crew,
            self._feed,
            self._planner,
            self._tally,
            throttle,
            self._progress,
            on_end=self._end,
            on_nothing=self._drop,
            on_rest=self._rest,
            is_full=self._is_full,
            register=self._register,
        )

    @property
    def _given_env(self) -> dict[str, str]:
        return dict(one.split("=", 1) for one in self._options.env if "=" in one)

    @property
    def _slots(self) -> int:
        slots = self._options.slots
        return max(1, slots if self._tally.total is None else min(slots, self._tally.total))

    def _commands(self) -> Crew:
        options = self._options
        settings = HostSettings(
            slots=self._slots,
            folder=self._folder,
            how=options.how,
            shell=self._planner.template.shell,
            env=self._given_env,
            timeout=options.fixed_timeout,
            memory=options.memory,
            nice=options.nice,
        )
        book = None if self._journal is None else self._journal.open_book(CommandCrew.ahead, settings.slots)
        return CommandCrew(settings, self._name, None if self._begun is None else self._begun.add, book, self._host)

    def _functions(self) -> Crew:
        from bossworker.cli.function_crew import FunctionCrew

        if self._host is not None:
            self._host.drop()
        options = self._options
        os.environ.update(self._given_env)
        if options.wd:
            os.chdir(options.wd)

        def begin() -> None:
            os.dup2(2, 1)  # what the handler prints is no answer
            sys.stdout = sys.stderr
            os.nice(options.nice)

        handler = load_function(options.function or "")
        book = None if self._journal is None else self._journal.open_book(FunctionCrew.ahead, self._slots)
        return FunctionCrew(handler, self._slots, begin, options.fixed_timeout, book)

    # -- each job ---------------------------------------------------------------------------------------

    def _end(self, ended: Ended) -> None:
        for one in self._on_end:
            one(ended)
        self._summary.add(ended)
        kept = self._options.kept_joblog or self._options.journal or self._options.function
        if not (ended.ok or kept):
            self._keep_for_rerun(ended)
        self._printer.show(ended)
        if self._journal is not None:
            self._journal.end(ended)
        if self._in_order is None:
            printers.discard_files(ended)

    def _keep_for_rerun(self, ended: Ended) -> None:
        if trouble := self._reruns.keep(ended):
            self._progress.clear()
            printers.say(f"bossworker run: what fails is not kept: {trouble}")

    def _is_full(self) -> bool:
        return self._in_order is not None and self._in_order.is_full

    def _drop(self, plan: Planned) -> None:
        self._summary.interrupted += 1
        if self._journal is not None:
            self._journal.drop(plan)
        if self._in_order is not None:
            self._in_order.drop(plan.place)

    def _rest(self) -> None:
        if self._log is not None:
            self._log.flush()
        if self._journal is not None:
            self._journal.flush()
            self._journal.answer()

    def _register(self, poll: select.poll) -> None:
        if self._journal is not None:
            self._journal.register(poll)

    @cached_property
    def _summary(self) -> Summary:
        from bossworker.cli.summary import Summary  # which is needed only once something has ended

        return Summary(_SLOWEST_IN_CI) if self._in_actions else Summary()

    @cached_property
    def _reruns(self) -> Reruns:
        from bossworker.cli.reruns import Reruns  # which is needed only once something has failed

        return Reruns(self._options, self._argv, self._name, self._can_be_read_again)

    # -- at the end -------------------------------------------------------------------------------------

    def _tell(self, interrupts: Interrupts, stopped: bool) -> None:
        bold, plain = ("\x1b[1;31m", "\x1b[0m") if colours(2) else ("", "")
        rerun = self._reruns.command() if self._summary.failed else []
        lines = self._summary.lines(rerun, bold, plain)
        if self._feed.skipped and not self._tally.done and not lines:
            where = "journal" if self._journal is not None else "joblog" if self._log is not None else "results"
            lines = [f"nothing to do: all of it is in the {where}"]
        if self._options.retry_failed and not self._tally.total:
            lines.append("nothing to do: nothing in the joblog has failed")
        if self._journal is not None and self._summary.failed and not rerun:
            lines.append("rerun them: the same, with --resume-failed")
        if interrupts.count:
            left = self._summary.unfinished(self._tally.left, self._feed.exhausted)
            how = "at once" if stopped else f"{left} were interrupted or not begun"
            goes_on = "; the same command line goes on" if self._journal is not None else ""
            lines.append(f"stopped by {interrupts.name}: {how}{goes_on}")
        elif self._tally.halted:
            lines.append(f"halted by --halt {self._tally.rule}")
        if lines:
            printers.say("\n".join(lines))

    def _remove_folder(self) -> None:
        if os.path.isdir(self._folder):
            from bossworker.system import folders

            folders.remove(self._folder)
