"""What a real browser makes of the page: run as a program, with the names of checks; prints what became of each.

    python -m tests.web.browser_checks [NAME...]

In a process of its own, since a browser outlives a test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

import bossworker
from bossworker import BossWorker, jobs, run_command, tasks
from tests.conftest import wait_for
from tests.web.browsers import find_browser
from tests.web.conftest import client_of

AXE = Path(__file__).with_name("axe") / "axe.min.js"
NASTY = "<script>window.harmed = 1</script><img src=x onerror='window.harmed = 1'>"
MARGIN = 10  # of times that are promised


def work(job: dict[str, Any]) -> Any:
    me = bossworker.current_job()
    assert me is not None
    match job.get("do"):
        case "raise":
            raise ValueError(job.get("text", "rattle"))
        case "sleep":
            me.progress(3, 10, job.get("text", "third of ten"))
            print(job.get("text", "a line"), flush=True)
            time.sleep(job["seconds"])
        case "talk":
            print("begins", job.get("text", ""))
            wait_for(Path(job["path"]).exists, 300)
            print("is through")
    return {}


def other_work(job: dict[str, Any]) -> dict[str, Any]:
    return {"by": "other_work"}


class World:
    """A browser, and the page that it looks at: of all pools that are there."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        self.url = url

    @contextmanager
    def pool(self, handler: Any = work, **settings: Any) -> Iterator[tuple[BossWorker, str]]:
        """A pool that can be seen, and the address of the page."""
        bw = BossWorker(handler, **{"worker_count": 2, "name": "mill", "logs": "discard", **settings})
        try:
            bw.listen()
            with self.client() as client:
                wait_for(lambda: shows(client, bw))
            yield bw, self.url
        finally:
            bw.shut_down(force=True)

    def client(self) -> httpx.Client:
        return client_of(self.url)

    @contextmanager
    def tab(self, url: str, route: str = "", **context: Any) -> Iterator[Page]:
        """A tab in a browser window of its own; anything that goes wrong in it is an error."""
        window = self.browser.new_context(**context)
        wrong: list[str] = []
        page = window.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if is_wrong(message) else None)
        try:
            page.goto(url)
            if route:
                go(page, route)
            yield page
            assert not wrong, wrong
        finally:
            window.close()


def is_wrong(message: ConsoleMessage) -> bool:
    """An answer that is none (404, for one) is told as well."""
    return message.type == "error" and "Failed to load resource" not in message.text


def shows(client: httpx.Client, bw: BossWorker) -> bool:
    """Whether the page shows this pool, and no other."""
    return [pool["boss"] for pool in client.get("/api/state").json()["pools"] if not pool["away"]] == [bw.boss_pid]


def go(page: Page, route: str) -> None:
    page.evaluate("route => { location.hash = route }", route)


SEEN = {  # what is there once a page has been drawn: its heading, and something of what it shows
    "now": ("Now", "tr.worker"),
    "jobs": ("Jobs", ".job-body .job-id, .empty"),
    "job": ("Jobs of ", ".fields"),
    "commands": ("Jobs", ".job-body .job-id, .empty"),
    "command": ("Commands /", ".fields"),
    "journal": ("Jo", ".job-body .job-id, .fields"),
    "timeline": ("Timeline", "canvas"),
    "tasks": ("Tasks", ".tasks tbody tr, .empty"),
    "task": ("Tasks /", ".fields"),
    "nowhere": ("", ".empty"),
}


def show(page: Page, route: str) -> None:
    """Go there, and wait until it is drawn."""
    heading, content = SEEN[route.removeprefix("#/").partition("/")[0].partition("?")[0]]
    go(page, route)
    if heading:
        expect(page.locator("h1")).to_contain_text(heading)
    expect(page.locator(f"main :is({content})").first).to_be_visible()


def key_of(page: Page) -> str:
    """Of the only pool, in routes."""
    key: str = page.evaluate("fetch('api/state').then((told) => told.json()).then((told) => told.pools[0].key)")
    return key


def is_live(page: Page) -> None:
    expect(page.locator(".state-live")).to_be_visible()


def check_nothing_leaves_the_machine(world: World) -> None:
    with world.pool() as (bw, url), world.tab(url) as page:
        asked: list[Request] = []

        def note(request: Request) -> None:  # (Playwright cannot take a list's own method)
            asked.append(request)

        page.context.on("request", note)
        bw.add_work({"do": "raise"}, {"do": "sleep", "seconds": 600})
        page.reload()
        is_live(page)
        for route in ("#/jobs/mill", "#/job/mill/1", "#/timeline/mill", "#/tasks", "#/commands"):
            show(page, route)
        hosts = {
            request.url.split("/")[2].rpartition(":")[0] for request in asked if not request.url.startswith("data:")
        }
        assert hosts == {"127.0.0.1"}, hosts
        assert len(asked) > 15
        assert "token" not in page.url


def check_six_tabs_stay_live(world: World) -> None:
    """And in each of them more can be asked for: a browser has six connections for all of them."""
    with world.pool() as (bw, url), world.tab(url) as first:
        tabs = [first, *(first.context.new_page() for _ in range(5))]
        for tab in tabs[1:]:
            tab.goto(url.partition("?")[0])
        for number, tab in enumerate(tabs):
            is_live(tab)
            expect(tab.locator("tbody tr.worker")).to_have_count(2)
            bw.resize(3 + number)
            bw.resize(2)
        bw.add_work(*({"do": "raise"} for _ in range(7)))
        for tab in tabs:
            expect(tab.locator(".tile.bad .tile-value")).to_have_text("7")
            go(tab, "#/jobs/mill?status=failed")
            expect(tab.locator(".job-body .job")).to_have_count(7)
        tabs[0].close()  # the one that has the stream: another takes over
        bw.add_work({"do": "raise"})
        for tab in tabs[1:]:
            go(tab, "#/now")
            expect(tab.locator(".tile.bad .tile-value")).to_have_text("8")


def check_a_hidden_tab_asks_nothing(world: World) -> None:
    with world.pool() as (bw, url), world.tab(url, "#/jobs/mill") as page:
        is_live(page)
        show_or_hide(page, hidden=True)
        expect(page.locator(".state-hidden")).to_be_visible()
        asked: list[Request] = []

        def note(request: Request) -> None:
            asked.append(request)

        page.on("request", note)
        with world.tab(url, "#/now") as other:  # in which time passes
            bw.add_work(*({"do": "raise"} for _ in range(3)))
            expect(other.locator(".tile.bad .tile-value")).to_have_text("3")
        assert not asked
        show_or_hide(page, hidden=False)
        is_live(page)
        expect(page.locator(".job-body .job")).to_have_count(3)


def show_or_hide(page: Page, hidden: bool) -> None:
    """As a browser would that shows another tab. (A headless one shows all of them.)"""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')) }",
        hidden,
    )


def check_nothing_of_a_job_is_html(world: World) -> None:
    with world.pool(name=NASTY, logs="relay") as (bw, url):
        bw.add_work({"do": "raise", "text": NASTY, NASTY: NASTY}, {"do": "sleep", "seconds": 600, "text": NASTY})
        jobid = jobs.start(["sh", "-c", f'echo "{NASTY}"', NASTY], meta={"name": NASTY})
        jobs.wait(jobid)
        with world.tab(url) as page:
            is_live(page)
            expect(page.locator("h2").first).to_contain_text("<script>")
            expect(page.locator(".progress")).to_contain_text(NASTY)
            key = key_of(page)
            for route, place in (
                (f"#/jobs/{key}?status=failed", ".job-body .job"),
                (f"#/job/{key}/1", ".notice"),
                (f"#/job/{key}/1", "pre"),
                ("#/commands", ".job-body .job"),
                (f"#/command/{jobid}", ".output"),
            ):
                go(page, route)
                expect(page.locator(place).first).to_contain_text("<script>window.harmed")
            assert page.evaluate("window.harmed") is None


def check_a_killed_worker_is_seen(world: World) -> None:
    with world.pool() as (bw, url), world.tab(url) as page:
        is_live(page)
        pid = bw.worker_pids[0]
        expect(page.locator("tbody")).to_contain_text(str(pid))
        os.kill(pid, signal.SIGKILL)
        expect(page.locator("tbody")).not_to_contain_text(str(pid), timeout=1000 * MARGIN)
        expect(page.locator("tbody tr.worker")).to_have_count(2)


def check_a_wrong_token_is_refused(world: World) -> None:
    with world.pool() as (_, url):
        window = world.browser.new_context()
        page = window.new_page()
        for wrong in (f"{url}x", url.partition("?")[0]):
            answer = page.goto(wrong)
            assert answer is not None
            assert answer.status == 403
            assert "a token is needed" in page.content()
        answer = page.goto(url)
        assert answer is not None
        assert answer.status == 200
        is_live(page)
        page.reload()  # from here on it is the cookie
        is_live(page)
        window.close()


def is_narrow(page: Page) -> bool:
    """Whether there is no sideways scrolling."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@contextmanager
def a_task() -> Iterator[tasks.Task]:
    """That has printed, and sent messages."""
    program = (
        "import os, sys; messages = int(os.environ['BOSSWORKER_TASK_FD'])\n"
        "os.write(messages, b'z' * 300)\n"
        "print('w' * 300, flush=True)\n"
        "for line in sys.stdin: print('got', line, end='', flush=True)\n"
        "while message := os.read(messages, 1 << 17): os.write(messages, b'back: ' + message)"
    )
    task = tasks.spawn([sys.executable, "-c", program], meta={"name": "a-long-name-" * 6})
    try:
        wait_for(lambda: task.stream("data").limit)
        yield task
    finally:
        task.delete()


def check_narrow_screens(world: World) -> None:
    name = "a-name-that-is-rather-long-for-a-telephone"
    with (
        TemporaryDirectory() as folder,
        a_task() as task,
        world.pool(name=name, journal=Path(folder, "narrow.db"), logs="relay") as (bw, url),
    ):
        bw.add_work(
            *({"do": "raise", "text": "x" * 300} for _ in range(3)), {"do": "sleep", "seconds": 600, "text": "v" * 300}
        )
        jobid = jobs.start(["true", "y" * 300])
        with world.tab(url, viewport={"width": 360, "height": 740}) as page:
            is_live(page)
            key = key_of(page)
            routes = ["#/now", f"#/jobs/{key}?status=failed", f"#/job/{key}/1", f"#/job/{key}/4", f"#/timeline/{key}"]
            routes += ["#/tasks", f"#/task/{task.id}", "#/commands", f"#/command/{jobid}", "#/nowhere"]
            for route in [*routes, "#/journal/narrow.db", "#/journal/narrow.db/1"]:
                show(page, route)
                assert is_narrow(page), route
            show(page, "#/now")
            page.get_by_role("button", name="Reload…").click()
            page.get_by_role("textbox", name="Handler").fill("nowhere." * 20 + "at_all:fn")
            page.get_by_role("button", name="Reload", exact=True).click()
            expect(page.locator("dialog .notice")).to_be_visible()
            assert is_narrow(page), "a question"


def check_the_keyboard_is_enough(world: World) -> None:
    with world.pool(worker_count=1) as (bw, url), world.tab(url) as page:
        bw.add_work(*({"do": "raise", "text": f"rattle {n}"} for n in range(30)), {"do": "sleep", "seconds": 600})
        is_live(page)
        page.keyboard.press("2")
        expect(page.locator("h1")).to_have_text("Jobs")
        page.keyboard.press("/")
        page.keyboard.type("rattle 2")
        expect(page.locator(".job-body .job")).to_have_count(11)  # 2, and 20 to 29
        page.keyboard.press("Tab")
        expect(page.locator(".job-scroll")).to_be_focused()
        page.keyboard.press("ArrowDown")
        page.keyboard.press(" ")
        expect(page.get_by_role("button", name="Run chosen again")).to_be_visible()
        page.keyboard.press("Enter")
        expect(page.locator("pre").first).to_contain_text("rattle 28")
        page.get_by_role("button", name="Run again").focus()
        page.keyboard.press("Enter")
        expect(page.locator("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("dialog")).not_to_be_visible()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Keep as it is")).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="the new job")).to_be_visible()
        page.keyboard.press("3")
        expect(page.locator("h1")).to_have_text("Timeline")
        page.locator("canvas").focus()
        page.keyboard.press("-")
        expect(page.get_by_label("Shows")).not_to_have_value("60")


def check_jobs_are_cancelled_and_run_again(world: World) -> None:
    with world.pool(worker_count=1) as (bw, url), world.tab(url, "#/jobs/mill?status=failed") as page:
        bw.add_work(*({"do": "raise"} for _ in range(5)))
        list(bw.results())
        expect(page.locator(".job-body .job")).to_have_count(5)
        page.get_by_role("button", name="Run all 5 again").click()
        page.get_by_role("button", name="Run again", exact=True).click()
        expect(page.locator(".job-body .job")).to_have_count(10)
        go(page, "#/now")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("button", name="Resume")).to_be_visible()
        bw.add_work(*({"n": n} for n in range(20)))
        go(page, "#/jobs/mill?status=queued")
        page.get_by_role("button", name="Cancel all 20").click()
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.locator(".empty-title")).to_have_text("No job fits")
        assert {result.error_kind for result in bw.results()} == {"cancelled"}


def check_a_handler_is_reloaded(world: World) -> None:
    with world.pool(worker_count=1) as (bw, url), world.tab(url) as page:
        page.get_by_role("button", name="Reload…").click()
        field = page.get_by_role("textbox", name="Handler")
        expect(field).to_have_value("")  # what is in __main__ has no name
        field.fill(f"nowhere:{NASTY}")
        page.get_by_role("button", name="Reload", exact=True).click()
        expect(page.locator("dialog")).to_contain_text("handler must be pkg.mod:fn")
        field.fill("nowhere.at_all:fn")
        page.get_by_role("button", name="Reload", exact=True).click()
        expect(page.locator("dialog")).to_contain_text("No module named 'nowhere'")
        page.keyboard.press("Escape")
        told = page.locator(".pool .notice").filter(has_text="was not reloaded")
        expect(told).to_contain_text("No module named 'nowhere'")
        page.get_by_role("button", name="Hide").click()
        expect(told).to_have_count(0)
        page.get_by_role("button", name="Reload…").click()
        field.fill("tests.web.browser_checks:other_work")
        page.keyboard.press("Enter")
        expect(page.locator(".pool .notice-good")).to_contain_text("other_work is the handler now")
        bw.add_work({})
        assert bw.get_result() == {"by": "other_work"}

        def offers_it() -> bool:
            """As soon as the page has heard of it."""
            page.get_by_role("button", name="Reload…").click()
            if field.input_value() == "tests.web.browser_checks:other_work":
                return True
            page.keyboard.press("Escape")
            return False

        wait_for(offers_it)


def check_a_journal_outlives_its_pool(world: World) -> None:
    with TemporaryDirectory() as folder, world.tab(world.url) as page:
        with world.pool(worker_count=1, journal=Path(folder, "orders.db")) as (bw, _):
            bw.add_work({"do": "raise", "text": NASTY}, {"n": 2})
            list(bw.results())
            bw.pause()
            bw.add_work(*({"n": n} for n in range(3)))
            row = page.locator(".journals tbody tr")
            expect(row.get_by_text(f"process {os.getpid()}")).to_be_visible()
        expect(row).to_contain_text("what is queued waits")
        expect(row.locator("td[data-label=queued]")).to_have_text("3")
        row.get_by_role("link").click()
        expect(page.locator(".job-body .job")).to_have_count(5)
        page.get_by_role("button", name="failed").click()
        page.get_by_role("button", name="Run all 1 again").click()
        page.get_by_role("button", name="Run again", exact=True).click()
        expect(page.get_by_role("button", name="queued")).to_have_text("queued 4")
        page.locator(".job-body .job-id a").click()
        expect(page.locator(".notice")).to_contain_text(NASTY)
        assert page.evaluate("window.harmed") is None
        page.get_by_role("link", name="Journal orders.db").click()
        page.get_by_role("button", name="Forget…").click()
        page.get_by_label("also those").check()
        page.get_by_role("button", name="Forget", exact=True).click()
        expect(page.locator(".job-body .job")).to_have_count(4)


def check_a_hundred_thousand_jobs(world: World) -> None:
    with world.pool() as (bw, url), world.tab(url) as page:
        is_live(page)
        bw.pause()
        bw.add_work(*({"n": n} for n in range(100_000)))
        expect(page.locator(".tile-value").first).to_have_text("100,000")
        began = time.monotonic()
        go(page, "#/jobs/mill?status=queued")
        expect(page.locator(".job-body .job-id").first).to_have_text("1", timeout=1000 * MARGIN)
        expect(page.locator(".job-body .job-text").first).to_have_text("n=0", timeout=1000 * MARGIN)
        assert time.monotonic() - began < MARGIN
        page.locator(".job-scroll").focus()
        page.keyboard.press("End")
        expect(page.locator(".job-body .job-id").last).to_have_text("100000", timeout=1000 * MARGIN)
        assert page.locator(".job-body .job").count() < 100  # what is seen is drawn, no more
        page.locator("#search").fill("77777")
        expect(page.locator(".job-body .job")).to_have_count(1, timeout=1000 * MARGIN)


def check_output_of_a_command_is_live(world: World) -> None:
    with TemporaryDirectory() as folder:
        script = f"echo first; while test ! -e {folder}/go; do sleep 0.05; done; echo second; sleep 600"
        jobid = jobs.start(script, shell=True)
        try:
            with world.tab(world.url, f"#/command/{jobid}") as page:
                output = page.get_by_label("stdout")
                expect(output).to_have_text("first\n")
                Path(folder, "go").touch()
                expect(output).to_have_text("first\nsecond\n")
                page.get_by_role("button", name="Kill").click()
                page.locator("dialog").get_by_role("button", name="Kill").click()
                expect(page.locator("h1 .badge")).to_contain_text("signal 9")
        finally:
            jobs.signal(jobid)
            jobs.wait(jobid, 30)


def check_a_task_is_steered(world: World) -> None:
    task = tasks.spawn(["cat"])
    try:
        with world.tab(world.url, f"#/task/{task.id}") as page:
            output, badge = page.get_by_label("stdout"), page.locator("h1 .badge")
            send_line(page, "hello")
            expect(output).to_have_text("hello\n")
            page.get_by_role("button", name="Pause").click()
            page.get_by_role("button", name="Resume").click()
            before = task.info(fresh=True)["pid"]
            page.get_by_role("button", name="Restart").click()
            page.locator("dialog").get_by_role("button", name="Restart").click()
            expect(page.locator("dialog")).to_have_count(0)
            assert task.info(fresh=True)["pid"] not in (before, None)
            send_line(page, "again")
            expect(output).to_have_text("hello\nagain\n")
            page.get_by_role("combobox", name="Signal").select_option("TERM")
            page.get_by_role("button", name="Send signal").click()
            expect(badge).to_contain_text("signal 15")
            page.get_by_role("button", name="Start again").click()
            expect(badge).to_have_text("running")
            page.get_by_role("button", name="Close stdin").click()
            page.locator("dialog").get_by_role("button", name="Close").click()
            expect(badge).to_have_text("done")
            page.get_by_role("button", name="Delete").click()
            page.locator("dialog").get_by_role("button", name="Delete").click()
            expect(page.locator("h1")).to_have_text("Tasks")
            assert not tasks.search()
    finally:
        task.delete()


def send_line(page: Page, text: str) -> None:
    page.get_by_label("A line for its stdin").fill(text)
    page.keyboard.press("Enter")


def check_a_task_is_sent_messages(world: World) -> None:
    with a_task() as task, world.tab(world.url, f"#/task/{task.id}") as page:
        messages = page.get_by_label("data", exact=True)
        expect(messages).to_have_text("z" * 300)
        page.get_by_text("Send it a message").click()
        page.get_by_label("A message for its data").fill(NASTY)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Close stdin").click()
        page.locator("dialog").get_by_role("button", name="Close").click()
        expect(messages).to_have_text(f"{'z' * 300}back: {NASTY}")
        assert page.evaluate("window.harmed") is None


def check_a_job_is_looked_at_as_it_runs(world: World) -> None:
    """What it prints, line by line; what it takes; and where nothing can be seen, why."""
    with TemporaryDirectory() as folder:
        go_on = str(Path(folder, "go"))
        with world.pool(worker_count=1, logs="relay") as (bw, url), world.tab(url) as page:
            bw.add_work({"do": "talk", "path": go_on, "text": NASTY})
            show(page, "#/job/mill/1")
            shown = page.locator(".output")
            expect(shown).to_contain_text(f"begins {NASTY}")
            expect(page.locator(".fields")).to_contain_text("of a processor")
            Path(go_on).touch()
            expect(shown).to_contain_text("is through")
            expect(page.locator("h1 .badge")).to_have_text("done")
            assert page.evaluate("window.harmed") is None
            Path(go_on).unlink()
        with world.pool(worker_count=1) as (bw, url), world.tab(url) as page:
            bw.add_work({"do": "talk", "path": go_on})
            show(page, "#/job/mill/1")
            expect(page.locator("main")).to_contain_text('logs="relay"')
            Path(go_on).touch()
        with world.pool(run_command, worker_count=1) as (bw, url), world.tab(url) as page:
            script = (
                f"echo begins; echo oops >&2; while test ! -e {go_on}.2; do sleep 0.05; done; echo is through; exit 3"
            )
            bw.add_work({"cmd": script, "shell": True})
            show(page, "#/job/mill/1")
            expect(page.get_by_label("stdout")).to_have_text("begins\n")
            expect(page.get_by_label("stderr")).to_have_text("oops\n")
            expect(page.locator(".fields")).to_contain_text("processes")
            Path(f"{go_on}.2").touch()
            expect(page.get_by_label("stdout")).to_have_text("begins\nis through\n")
            expect(page.locator(".notice")).to_contain_text("exit code 3")


def check_everybody_can_read_it(world: World) -> None:
    """What axe-core finds serious, in light and in dark."""
    with (
        TemporaryDirectory() as folder,
        a_task() as task,
        world.pool(worker_count=3, journal=Path(folder, "readable.db"), logs="relay") as (bw, url),
    ):
        bw.add_work(
            *({"do": "raise"} for _ in range(5)), {"do": "sleep", "seconds": 600}, {"do": "sleep", "seconds": 600}
        )
        bw.add_work({"n": 1})
        jobid = jobs.start(["true"])
        jobs.wait(jobid)
        with world.tab(url) as page:
            is_live(page)
            expect(page.locator(".tile.bad .tile-value")).to_have_text("5")
            page.evaluate(AXE.read_text())
            routes = ["#/now", "#/jobs/mill?status=failed", "#/job/mill/1", "#/job/mill/7", "#/timeline/mill"]
            routes += ["#/tasks", f"#/task/{task.id}", "#/commands", f"#/command/{jobid}", "#/nowhere"]
            for route in [*routes, "#/journal/readable.db", "#/journal/readable.db/1"]:
                show(page, route)
                assert_readable(page, route)
            show(page, "#/now")
            page.get_by_role("button", name="Reload…").click()
            page.get_by_role("textbox", name="Handler").fill("nowhere.at_all:fn")
            page.get_by_role("button", name="Reload", exact=True).click()
            expect(page.locator("dialog .notice")).to_be_visible()
            assert_readable(page, "a question")
            page.keyboard.press("Escape")
            expect(page.locator(".pool .notice")).to_be_visible()
            assert_readable(page, "a reload that has failed")


def assert_readable(page: Page, where: str) -> None:
    """In light; and in dark, where nothing is different but the colours."""
    for scheme, rules in (("light", ""), ("dark", ", runOnly: { type: 'rule', values: ['color-contrast'] }")):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        found = page.evaluate(f"axe.run({{ resultTypes: ['violations']{rules} }}).then((told) => told.violations)")
        serious = [
            {"id": one["id"], "help": one["help"], "nodes": [node["html"][:200] for node in one["nodes"]]}
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious, (scheme, where, json.dumps(serious, indent=1)[:3000])


def check_empty_and_trouble(world: World) -> None:
    """What there is to do is said."""
    with world.pool() as (_, url), world.tab(url, "#/jobs/mill") as page:
        expect(page.locator(".empty")).to_contain_text("add_work")
        go(page, "#/tasks")
        expect(page.locator(".empty")).to_contain_text("tasks.spawn")
        go(page, "#/job/mill/17")
        expect(page.locator(".empty")).to_contain_text("no such thing")
        go(page, "#/nonsense")
        expect(page.locator(".empty")).to_contain_text("no such page")


CHECKS: dict[str, Callable[[World], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}


QUICKLY = [
    "nothing_leaves_the_machine",
    "nothing_of_a_job_is_html",
    "a_wrong_token_is_refused",
    "the_keyboard_is_enough",
    "jobs_are_cancelled_and_run_again",
    "output_of_a_command_is_live",
    "a_task_is_steered",
]
PARTS = {"quickly": QUICKLY, "thoroughly": [name for name in CHECKS if name not in QUICKLY]}
"""What a quick run of the tests checks, and what it leaves out."""


@contextmanager
def served() -> Iterator[str]:
    """The address of a page of all pools."""
    command = [sys.executable, "-m", "bossworker", "web", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def main(names: list[str]) -> None:
    """
    Args:
        names: Of checks, or of a part of them; none: all.
    """
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # where what handlers print belongs, whichever way it comes
    expect.set_options(timeout=30_000)
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        for name in [one for given in names for one in PARTS.get(given, [given])] or CHECKS:
            began = time.monotonic()
            try:
                CHECKS[name](World(browser, url))
                wrong = ""
            except BaseException:
                wrong = traceback.format_exc()
            print(
                json.dumps({"name": name, "wrong": wrong, "seconds": time.monotonic() - began}), file=told, flush=True
            )
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
