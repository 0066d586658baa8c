"""``top`` on a whole terminal, by Textual (the extra ``top``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, RichLog, Static

from bossworker.cli import top_board
from bossworker.cli.entries import STREAMS, Entry, EntryError, short
from bossworker.cli.pool_entries import PoolEntry
from bossworker.cli.quantities import printable
from bossworker.cli.top_board import Board, BoardRow, Picture, Room
from bossworker.pool.caller.operating import name_of

LOG_SECONDS = 0.5  # between looks for more output
LOG_BYTES = 1 << 16  # of what was written before
MOST_LINES = 10_000

STYLES = {"busy": "green", "failed": "red", "paused": "yellow", "idle": "dim", "done": ""}

SECTIONS = {  # by the names of the parts of a picture: columns, and what to say where there are no rows
    "pools": (top_board.POOL_COLUMNS, "No pool has a door. In its program, pool.listen() opens one."),
    "workers": (top_board.WORKER_COLUMNS, ""),
    "entries": (top_board.ENTRY_COLUMNS, "No job or task. bossworker start -- COMMAND starts one."),
}

HELP = """\
k      kill: TERM to a job or task; of a pool, cancel all jobs; of a worker, cancel the job that it runs
s      stack: what it does just now
l      log: what it has written, as it comes; of a worker, what its job prints (with logs="relay");
       of a pool, the last jobs that have failed, with their errors
r      retry: start it once more; of a pool, run its failed jobs again
p      pause it, or let it go on
tab    the next table; up, down, page up, page down, home and end move in it
q      leave; nothing that is shown here ends by that

A pool is shown here when its program has opened a door: pool.listen().
Jobs and tasks are those of bossworker ps, the newest first."""


class BoardTable(DataTable[Text]):
    """A table that repaints what has changed, and nothing else."""

    def __init__(self, columns: tuple[str, ...], name: str) -> None:
        super().__init__(cursor_type="row", show_cursor=False, id=name)
        self._columns = columns
        self._shown: list[int] = []
        self._room: Room | None = None
        self._rows: dict[str, BoardRow] = {}

    def on_focus(self) -> None:
        self.show_cursor = True

    def on_blur(self) -> None:
        """Keys act on a row of the table that has the focus, and only that row is shown to be chosen."""
        self.show_cursor = False

    def on_resize(self) -> None:
        """Some columns are left out where there is no room for them."""
        width = self.app.size.width
        if (room := top_board.room_in(width)) != self._room:
            self._room, rows, self._rows = room, self._rows, {}
            self._shown = top_board.columns_shown(self._columns, width)
            self.clear(columns=True)
            for at in self._shown:
                title = self._columns[at]
                self.add_column(Text(title, justify="right" if title in top_board.RIGHT else "left"), key=title)
            self.show_rows(list(rows.values()))

    def show_rows(self, rows: Iterable[BoardRow]) -> None:
        """These, instead of those before; the cursor stays with its row."""
        wanted = {row.key: row for row in rows}
        if not self._shown or wanted == self._rows:
            return
        chosen = self.chosen
        if list(wanted) == list(self._rows):
            self._update(wanted.values())
        else:
            place = self.scroll_offset
            self.clear()
            for row in wanted.values():
                self.add_row(*(self._text(row, at) for at in self._shown), key=row.key)
            self._rows = wanted
            if chosen is not None and chosen.key in wanted:
                self.move_cursor(row=list(wanted).index(chosen.key), scroll=False)
                self.scroll_to(y=place.y, animate=False)
        self._rows = wanted

    def _update(self, rows: Iterable[BoardRow]) -> None:
        for row in rows:
            before = self._rows[row.key]
            for at in self._shown:
                if (row.cells[at], row.mood) != (before.cells[at], before.mood):
                    self.update_cell(row.key, self._columns[at], self._text(row, at), update_width=True)

    def _text(self, row: BoardRow, at: int) -> Text:
        title = self._columns[at]
        cell = top_board.fitted(title, row.cells[at], self.app.size.width)
        style = STYLES[row.mood] if title == "STATE" or row.mood == "done" else ""
        if title == "FAILED" and cell not in ("0", "-"):
            style = STYLES["failed"]
        return Text(cell, style=style, justify="right" if title in top_board.RIGHT else "left", no_wrap=True)

    @property
    def chosen(self) -> BoardRow | None:
        """The row that the cursor is on."""
        rows = list(self._rows.values())
        return rows[self.cursor_row] if 0 <= self.cursor_row < len(rows) else None


class HeaderLine(Static):
    """The first line: as much of it as there is room for."""

    def __init__(self) -> None:
        super().__init__(top_board.TITLE, id="summary")
        self._picture: Picture | None = None

    def show(self, picture: Picture) -> None:
        self._picture = picture
        self.on_resize()

    def on_resize(self) -> None:
        if self._picture is not None:
            self.update(Text(self._picture.header(self.size.width), style="bold"))


class Question(ModalScreen[bool]):
    """Whether to do something that cannot be undone."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "yes"),
        Binding("n,escape,q", "dismiss(False)", "no"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(Text(f"{self._text}\n\ny: yes    n: no"), classes="box")


class TextScreen(ModalScreen[None]):
    """Text to read; `more` gives what has come since, every now and then."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "dismiss", "back")]

    def __init__(self, title: str, text: str = "", more: Callable[[], Iterable[Text]] | None = None) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._more = more

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(Text(f"{self._title}   (escape: back)", style="bold"))
            yield RichLog(max_lines=MOST_LINES, min_width=0, auto_scroll=self._more is not None)

    def on_mount(self) -> None:
        log = self.query_one(RichLog)
        if self._text:
            log.write(Text(self._text))
        if self._more is not None:
            self._read()
            self.set_interval(LOG_SECONDS, self._read)
        log.focus()

    def _read(self) -> None:
        assert self._more is not None
        log = self.query_one(RichLog)
        for text in self._more():
            log.write(text)


class Top(App[None]):
    """See the module."""

    TITLE = "bossworker top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "kill", "kill"),
        Binding("s", "stack", "stack"),
        Binding("l", "log", "log"),
        Binding("r", "retry", "retry"),
        Binding("p", "pause", "pause"),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("q,ctrl+c", "quit", "quit", key_display="q"),
    ]
    CSS = """
    #summary { height: 1; padding: 0 1; }
    BoardTable { margin-top: 1; height: auto; overflow-x: hidden; background: $background; scrollbar-size-vertical: 1; }
    #pools { max-height: 25%; }
    #workers { max-height: 35%; }
    #entries { height: 1fr; }
    .hint { height: auto; margin-top: 1; padding: 0 1; color: $text-muted; }
    .box { border: round $primary; padding: 0 1; width: auto; max-width: 90%; height: auto; background: $surface; }
    .wide { width: 90%; height: 90%; }
    .wide RichLog { height: 1fr; background: $surface; overflow-y: auto; scrollbar-size-vertical: 1; }
    ModalScreen { align: center middle; }
    """

    def __init__(self, interval: float, board: Board | None = None) -> None:
        super().__init__()
        self._interval = interval
        self._board = board or Board()
        self._looking = False
        # Kept, and not looked up: a look may come back when another screen is in front, or all of it is closing.
        self._summary = HeaderLine()
        self._tables = {name: BoardTable(columns, name) for name, (columns, _) in SECTIONS.items()}
        self._hints: dict[str, Static] = {}

    def compose(self) -> ComposeResult:
        yield self._summary
        for name, (_, hint) in SECTIONS.items():
            yield self._tables[name]
            self._hints[name] = Static(hint, classes="hint")
            yield self._hints[name]
        yield Footer()

    def on_mount(self) -> None:
        self.set_interval(self._interval, self.look)
        self.look()

    def look(self) -> None:
        """In a thread, since a pool may take its time to answer; not while the look before lasts."""
        if not self._looking:
            self._looking = True
            self.run_worker(self._look, thread=True, group="looks", exit_on_error=True)

    def _look(self) -> None:
        try:
            picture = self._board.look()
        finally:
            self._looking = False
        self.call_from_thread(self.show, picture)

    def show(self, picture: Picture) -> None:
        """Repaint what is different."""
        self._summary.show(picture)
        for name, table in self._tables.items():
            rows: list[BoardRow] = getattr(picture, name)
            table.show_rows(rows)
            table.display = bool(rows)
            self._hints[name].display = not rows and bool(SECTIONS[name][1])
        if len(self.screen_stack) == 1 and (self.focused is None or not self.focused.display):
            first = next((table for table in self._tables.values() if table.display), None)
            if first is not None:
                first.focus()

    # -- keys -----------------------------------------------------------------------------------------------

    @property
    def chosen(self) -> BoardRow | None:
        """The row that keys act on."""
        return self.focused.chosen if isinstance(self.focused, BoardTable) else None

    def action_kill(self) -> None:
        row = self.chosen
        if row is None or row.entry is None:
            return
        question = f"Send TERM to {_title(row)}?"
        if row.entry.kind == "pool":
            question = f"Cancel {'all jobs of ' if row.job_id is None else ''}{_title(row)}?"
        self.push_screen(Question(question), lambda yes: self._do(top_board.kill, row) if yes else None)

    def action_retry(self) -> None:
        self._do(top_board.retry, self.chosen)

    def action_pause(self) -> None:
        self._do(top_board.pause, self.chosen)

    def action_stack(self) -> None:
        row = self.chosen
        if row is not None:
            self._ask(partial(top_board.stack_of, row), lambda text: TextScreen(f"stack of {_title(row)}", text))

    def action_log(self) -> None:
        row = self.chosen
        entry = None if row is None else row.entry
        if isinstance(entry, PoolEntry) and row is not None and row.job_id is not None:
            self.push_screen(TextScreen(f"log of {_title(row)}", more=JobLines(entry, row.job_id)))
        elif isinstance(entry, PoolEntry):
            title = f"failed jobs of {entry.name}"
            self._ask(partial(top_board.failures, entry), lambda text: TextScreen(title, text))
        elif row is not None and entry is not None:
            self.push_screen(TextScreen(f"log of {_title(row)}", more=LogReader(entry)))

    def action_help(self) -> None:
        self.push_screen(TextScreen("bossworker top", HELP))

    def _do(self, action: top_board.Action, row: BoardRow | None) -> None:
        if row is not None and row.entry is not None:
            self._ask(partial(action, row), self.notify)

    def _ask(self, ask: Callable[[], str], show: Callable[[str], Any]) -> None:
        """In a thread: then show what came of it, or say why nothing did."""

        def work() -> None:
            try:
                told = ask()
            except (EntryError, OSError, ValueError) as error:
                self.call_from_thread(self.notify, str(error), severity="warning")
                return
            self.call_from_thread(self._show_answer, show, told)

        self.run_worker(work, thread=True, group="actions")

    def _show_answer(self, show: Callable[[str], Any], told: str) -> None:
        shown = show(told)
        if isinstance(shown, TextScreen):
            self.push_screen(shown)
        self.look()

    def on_unmount(self) -> None:
        self._board.close()


class LogReader:
    """What a job or task writes, from shortly before now on: stdout, and stderr in red."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._places = dict.fromkeys(STREAMS, -LOG_BYTES)

    def __call__(self) -> list[Text]:
        found: list[Text] = []
        for stream in STREAMS:
            try:
                begin, data = self._entry.read(stream, self._places[stream], LOG_BYTES)
            except EntryError as error:
                return [Text(str(error), style="red")]
            if data or self._places[stream] < 0:
                whole = data if len(data) == LOG_BYTES else data[: data.rfind(b"\n") + 1] or data
                self._places[stream] = begin + len(whole)
                style = "" if stream == STREAMS[0] else "red"
                found += [
                    Text(printable(line.expandtabs()), style=style)
                    for line in whole.decode("utf-8", "replace").splitlines()
                ]
        return found


class JobLines:
    """What a job of a pool prints, line by line: some of what it has printed before, and what it prints from now on."""

    def __init__(self, entry: PoolEntry, job_id: int) -> None:
        self._entry = entry
        self._job_id = job_id
        self._next = 0
        self._told = ""

    def __call__(self) -> list[Text]:
        try:
            told = self._entry.told(lambda: self._entry.operator.output(self._job_id, self._next))
        except EntryError as error:
            return self._once(str(error))
        self._next = told.next
        if told.logs != "relay":
            return self._once(f'what it prints is not known here: its pool has logs="{told.logs}", not "relay"')
        style = {"stderr": "red"}
        return [
            Text(printable(text.expandtabs()), style=style.get(line.stream, ""))
            for line in told.lines
            for text in line.text.split("\n")
        ]

    def _once(self, text: str) -> list[Text]:
        before, self._told = self._told, text
        return [] if before == text else [Text(text, style="red")]


def _title(row: BoardRow) -> str:
    assert row.entry is not None
    job = "" if row.job_id is None else f"job {name_of(row.job_id)} of "
    return f"{job}{row.entry.kind} {row.entry.name or short(row.entry.id)}"
