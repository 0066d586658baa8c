"""Draws the pictures of the documentation: ``python docs/pictures.py`` writes docs/pictures/*.svg anew.

A test holds that what lies there is what this draws. No library is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent / "pictures"
FONT = "font-family='DejaVu Sans, Verdana, Helvetica, Arial, sans-serif'"
INK, SOFT, LINE = "#1f2d33", "#5b6b73", "#8a9aa3"
GREEN, BLUE, SAND, RED, GREY = "#dcefe6", "#e0eaf6", "#f7eed3", "#f8dfda", "#eef1f3"
EDGE = {GREEN: "#0b6e4f", BLUE: "#3a6ea5", SAND: "#a67c00", RED: "#b23a2a", GREY: "#8a9aa3"}


@dataclass
class Picture:
    """A drawing, by what is put on it."""

    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def box(
        self, x: int, y: int, w: int, h: int, title: str, *lines: str, fill: str = GREY, dashed: bool = False
    ) -> None:
        """A rectangle with a title, and lines below it."""
        dash = " stroke-dasharray='5 4'" if dashed else ""
        self.parts.append(
            f"<rect x='{x}' y='{y}' width='{w}' height='{h}' rx='8' fill='{fill}' stroke='{EDGE[fill]}' "
            f"stroke-width='1.4'{dash}/>"
        )
        top = y + h / 2 - 8 * len(lines) + 5 if lines else y + h / 2 + 5
        self.text(x + w / 2, top, title, bold=True)
        for number, line in enumerate(lines, 1):
            self.text(x + w / 2, top + 17 * number, line, size=12, colour=SOFT)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 14,
        colour: str = INK,
        bold: bool = False,
        anchor: str = "middle",
    ) -> None:
        """A line of text, by its anchor on the base line."""
        weight = " font-weight='bold'" if bold else ""
        self.parts.append(
            f"<text x='{x:g}' y='{y:g}' font-size='{size}' fill='{colour}' text-anchor='{anchor}'{weight}>"
            f"{escape(text)}</text>"
        )

    def arrow(self, *points: tuple[int, int], both: bool = False, dashed: bool = False, colour: str = SOFT) -> None:
        """A line through points, with a head at its end, or at both."""
        path = " ".join(f"{'L' if number else 'M'}{x} {y}" for number, (x, y) in enumerate(points))
        start = " marker-start='url(#head)'" if both else ""
        dash = " stroke-dasharray='5 4'" if dashed else ""
        self.parts.append(
            f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.6' marker-end='url(#head)'{start}{dash}/>"
        )

    def note(self, x: float, y: float, *lines: str, anchor: str = "middle", colour: str = SOFT) -> None:
        """Small text beside an arrow."""
        for number, line in enumerate(lines):
            self.text(x, y + 15 * number, line, size=12, colour=colour, anchor=anchor)

    def svg(self, title: str) -> str:
        """The whole of it."""
        head = (
            "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7' "
            f"orient='auto-start-reverse'><path d='M0 0 L10 5 L0 10 z' fill='{SOFT}'/></marker></defs>"
        )
        return "\n".join(
            [
                f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {self.width} {self.height}' "
                f"width='{self.width}' height='{self.height}' {FONT} role='img'>",
                f"<title>{escape(title)}</title>",
                head,
                f"<rect width='{self.width}' height='{self.height}' rx='10' fill='#ffffff'/>",
                *self.parts,
                "</svg>\n",
            ]
        )


def processes() -> str:
    p = Picture(860, 400)
    p.box(
        20,
        130,
        190,
        120,
        "your program",
        "the handle; no thread",
        "jobs become bytes,",
        "bytes become results",
        fill=BLUE,
    )
    p.box(
        310,
        130,
        200,
        120,
        "boss",
        "queue, deadlines, deaths",
        "never looks into a job:",
        "no job can harm it",
        fill=GREEN,
    )
    p.box(310, 300, 200, 80, "fork server", "one thread: forks the", "workers, and reaps them", fill=GREY)
    for number in range(3):
        p.box(
            640,
            20 + 95 * number,
            200,
            75,
            f"worker {number}",
            "your handler, on the",
            "main thread, one job at a time",
            fill=SAND,
        )
    p.arrow((212, 165), (308, 165))
    p.note(260, 156, "jobs")
    p.arrow((308, 215), (212, 215))
    p.note(260, 233, "results")
    for number in range(3):
        p.arrow((512, 165 + 25 * number), (638, 57 + 95 * number), both=True)
    p.note(535, 66, "batches,", "over ZeroMQ")
    p.arrow((410, 252), (410, 298), both=True)
    p.arrow((512, 325), (535, 325), (535, 300), (740, 300), (740, 287))
    p.note(585, 294, "forks")
    p.box(560, 322, 280, 58, "flight recorder", "shared memory: what each worker is at", fill=GREY, dashed=True)
    p.note(115, 290, "when it ends, however it ends,", "all of these end with it")
    return p.svg("The processes of a pool: the caller, the boss, the fork server and the workers")


def life_of_a_job() -> str:
    p = Picture(860, 330)
    p.box(20, 60, 130, 60, "added", "pickled, has an id", fill=BLUE)
    p.box(210, 60, 130, 60, "queued", "in the boss", fill=GREEN)
    p.box(410, 60, 140, 60, "running", "in a worker", fill=SAND)
    p.box(680, 60, 160, 60, "one Result", "waits for you", fill=BLUE)
    p.arrow((152, 90), (208, 90))
    p.arrow((342, 90), (408, 90))
    p.arrow((552, 90), (678, 90))
    p.note(614, 62, "returned:", "ok")
    p.box(400, 200, 160, 60, "must end", "JobTimeout raised in it", fill=RED)
    p.arrow((480, 122), (480, 198))
    p.note(388, 152, "time is up, too much", "memory, or cancel()")
    p.box(680, 200, 160, 60, "killed", "with all it started", fill=RED)
    p.arrow((562, 230), (678, 230))
    p.note(620, 222, "kill_grace")
    p.arrow((562, 205), (700, 122))
    p.arrow((760, 198), (760, 122))
    p.note(770, 165, "timeout", "memory", "cancelled", anchor="start")
    p.arrow((430, 58), (430, 24), (275, 24), (275, 58))
    p.note(352, 18, "its worker died, retries left")
    p.arrow((530, 58), (530, 24), (760, 24), (760, 58))
    p.note(645, 18, "raised: exception; died: crash")
    p.arrow((275, 122), (275, 300), (850, 300), (850, 90), (842, 90), dashed=True)
    p.note(330, 292, "cancel(): never runs", anchor="start")
    return p.svg("The life of a job: added, queued, running, and exactly one result")


def timeout() -> str:
    p = Picture(860, 190)
    p.arrow((40, 120), (830, 120))
    p.note(826, 142, "time")
    for x, top, below in (
        (80, "started", ""),
        (300, "timeout", "JobTimeout in the handler"),
        (520, "kill_grace later", "SIGKILL: worker, and all it started"),
        (720, "a moment later", "another worker stands ready"),
    ):
        p.parts.append(f"<circle cx='{x}' cy='120' r='6' fill='{EDGE[GREEN]}'/>")
        p.text(x, 96, top, size=13, bold=True)
        p.note(x, 170 if x > 600 else 150, below)
    p.parts.append("<rect x='80' y='112' width='220' height='16' fill='#f7eed3' stroke='#a67c00' rx='4'/>")
    p.parts.append("<rect x='300' y='112' width='220' height='16' fill='#f8dfda' stroke='#b23a2a' rx='4'/>")
    p.note(190, 60, "the handler runs")
    p.note(410, 60, "it may tidy up, and even return a result:", "most handlers end here at once")
    return p.svg("A timeout in two steps: JobTimeout inside the handler, and kill_grace later SIGKILL")


def detached() -> str:
    p = Picture(860, 300)
    p.box(20, 40, 170, 70, "your program", "jobs.start(...)", fill=BLUE)
    p.box(250, 40, 150, 70, "launcher", "one a program; leaves", "when it is idle", fill=GREY)
    p.box(460, 40, 160, 70, "supervisor", "waits, ends it in time,", "writes how it ended", fill=GREEN)
    p.box(690, 40, 150, 70, "command", "in a session", "of its own", fill=SAND)
    p.arrow((192, 75), (248, 75))
    p.note(220, 66, "order")
    p.arrow((402, 75), (458, 75))
    p.note(430, 66, "fork")
    p.arrow((622, 75), (688, 75))
    p.note(655, 66, "exec")
    p.box(
        430,
        190,
        410,
        90,
        "job directory",
        "job.json: what was asked      status.json: how it stands",
        "stdout   stderr   files/ (where it runs)",
        fill=GREY,
    )
    p.arrow((540, 112), (540, 188))
    p.arrow((765, 112), (765, 188))
    p.box(20, 200, 230, 70, "any process, any time", "status, wait, stdout, signal,", "by the job's id", fill=BLUE)
    p.arrow((252, 235), (428, 235), both=True)
    p.note(340, 227, "reads")
    p.note(105, 140, "may end now:", "the command goes on")
    return p.svg("A detached job: launcher, supervisor, command and the job directory")


def task() -> str:
    p = Picture(860, 300)
    p.box(
        330,
        30,
        200,
        90,
        "supervisor",
        "knows its child; starts it",
        "again if it should; leaves",
        "an hour after its end",
        fill=GREEN,
    )
    p.box(650, 30, 190, 90, "command", "stdin, stdout, stderr,", "and data: whole messages", fill=SAND)
    p.box(
        20,
        30,
        200,
        90,
        "clients",
        "kill, pause, restart, meta,",
        "write, follow: as many as",
        "like, in any process",
        fill=BLUE,
    )
    p.arrow((222, 75), (328, 75), both=True)
    p.note(275, 66, "socket: JSON,")
    p.note(275, 96, "never a pickle")
    p.arrow((532, 75), (648, 75), both=True)
    p.note(590, 66, "pipes, signals")
    p.box(
        330,
        190,
        510,
        80,
        "files in the pool's folder",
        "status, metadata, the output of each stream: they outlive the supervisor",
        "whoever may read the folder may look, whoever may write to it may steer",
        fill=GREY,
    )
    p.arrow((430, 122), (430, 188))
    p.arrow((120, 122), (120, 230), (328, 230))
    p.note(220, 222, "reads output")
    return p.svg("A background task: clients, the supervisor, the command and the files")


def door() -> str:
    p = Picture(860, 260)
    p.box(20, 30, 190, 80, "another program", "connect(...): a handle", "as the pool's own", fill=BLUE)
    p.box(20, 150, 190, 80, "another host", "with a key that is", "admitted (CURVE)", fill=BLUE)
    p.box(320, 75, 200, 110, "the door", "a process of its own:", "who is there, bounds,", "credit, JSON", fill=GREY)
    p.box(
        640, 75, 200, 110, "the pool", "boss and workers;", "clients take turns,", "results go to who added", fill=GREEN
    )
    p.arrow((212, 70), (318, 110), both=True)
    p.note(222, 52, "Unix socket, 0600", anchor="start")
    p.arrow((212, 190), (318, 150), both=True)
    p.note(222, 208, "tcp, encrypted", anchor="start")
    p.arrow((522, 130), (638, 130), both=True)
    p.note(580, 121, "socket pair")
    return p.svg("One pool for several programs: clients, the door's process, the pool")


def who_ends_with_whom() -> str:
    p = Picture(860, 330)
    p.text(20, 34, "your program ends, however it ends", bold=True, anchor="start")
    p.box(
        20,
        50,
        250,
        110,
        "end with it",
        "boss, fork server, workers;",
        "commands of run_command;",
        "what handlers have started",
        fill=RED,
    )
    p.box(
        300,
        50,
        250,
        110,
        "live on",
        "jobs.start: detached jobs;",
        "tasks, and their supervisors;",
        "bossworker start",
        fill=GREEN,
    )
    p.box(580, 50, 260, 110, "end when they like", "children of a ForkQueue:", "they are your own forks", fill=GREY)
    p.text(20, 204, "a worker dies, or must end", bold=True, anchor="start")
    p.box(20, 220, 250, 90, "end with it", "all that its job has started,", "whatever group it moved to", fill=RED)
    p.box(300, 220, 250, 90, "live on", "all other jobs; and what was", "started by jobs.start", fill=GREEN)
    p.box(580, 220, 260, 90, "comes", "a Result for its job, and another", "worker in its place", fill=BLUE)
    return p.svg("Who ends with whom")


DRAWINGS = {
    "processes": processes,
    "life-of-a-job": life_of_a_job,
    "timeout": timeout,
    "detached": detached,
    "task": task,
    "door": door,
    "who-ends-with-whom": who_ends_with_whom,
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (FOLDER / f"{name}.svg").write_text(draw())


if __name__ == "__main__":
    main()
