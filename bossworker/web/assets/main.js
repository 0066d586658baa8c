// The shell: which page is shown, and what all of them share.

import { html, render, useEffect, useState } from "./vendor/htm-preact.module.js";
import { get, listen } from "./api.js";
import { Command, Job, JournalJob } from "./job.js";
import { Jobs } from "./jobs.js";
import { Now } from "./now.js";
import { Task, Tasks } from "./tasks.js";
import { Timeline } from "./timeline.js";
import { Empty } from "./ui.js";

const PAGES = [["Now", "#/now", "now"], ["Jobs", "#/jobs/", "jobs job commands command journal"], ["Timeline", "#/timeline/", "timeline"], ["Tasks", "#/tasks", "tasks task"]];
const STATES = { live: "live", connecting: "connecting", hidden: "paused while hidden", lost: "connection lost, trying again" };

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page = "now", ...parts] = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { page: page || "now", parts, given: Object.fromEntries(new URLSearchParams(query)) };
}

function Shell() {
  const [at, setAt] = useState(route());
  const [now, setNow] = useState(null);
  const [state, setState] = useState("connecting");
  const [about, setAbout] = useState({ read_only: true, version: "" });
  useEffect(() => {
    const go = () => setAt(route());
    addEventListener("hashchange", go);
    addEventListener("keydown", onKey);
    listen(setNow, setState);
    get("api/about").then(setAbout, () => {});
  }, []);
  useEffect(() => {
    const names = { now: "Now", jobs: "Jobs", job: "Job", commands: "Jobs", command: "Command", journal: "Jobs", timeline: "Timeline", tasks: "Tasks", task: "Task" };
    const failed = (now?.pools ?? []).reduce((sum, pool) => sum + (pool.failed ?? 0), 0);
    document.title = `${names[at.page] ?? "?"}${failed ? ` (${failed} failed)` : ""} – bossworker`;
  }, [at, now]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.querySelector("#main").focus(); }}>Skip to the page</a>
    <header class="top">
      <a class="brand" href="#/now"><img src="assets/icon.svg" alt="" width="22" height="22" />bossworker</a>
      <nav aria-label="Pages">${PAGES.map(([name, href, pages]) => html`<a key=${name} href=${href} aria-current=${pages.split(" ").includes(at.page) ? "page" : undefined}>${name}</a>`)}</nav>
      <span class=${`state state-${state}`} role="status"><i aria-hidden="true"></i>${STATES[state]}${about.read_only && about.version ? " · read-only" : ""}</span>
    </header>
    <main id="main" tabindex="-1">${page(at, now, about.read_only)}</main>`;
}

function page({ page, parts, given }, now, readOnly) {
  switch (page) {
    case "now":
      return html`<h1 class="visually-hidden">Now</h1><${Now} now=${now} readOnly=${readOnly} />`;
    case "jobs":
      return html`<${Jobs} now=${now} kind="pool" name=${parts[0] ?? ""} given=${given} readOnly=${readOnly} />`;
    case "commands":
      return html`<${Jobs} now=${now} kind="commands" name="" given=${given} readOnly=${readOnly} />`;
    case "journal":
      return parts[1]
        ? html`<${JournalJob} key=${parts.join("/")} name=${parts[0]} id=${parts[1]} readOnly=${readOnly} />`
        : html`<${Jobs} now=${now} kind="journal" name=${parts[0] ?? ""} given=${given} readOnly=${readOnly} />`;
    case "job":
      return html`<${Job} key=${parts.join("/")} pool=${parts[0] ?? ""} id=${parts[1] ?? ""} given=${given} readOnly=${readOnly} />`;
    case "command":
      return html`<${Command} key=${parts[0]} id=${parts[0] ?? ""} readOnly=${readOnly} />`;
    case "timeline":
      return html`<${Timeline} now=${now} source=${parts[0] ?? ""} />`;
    case "tasks":
      return html`<${Tasks} />`;
    case "task":
      return html`<${Task} key=${parts[0]} id=${parts[0] ?? ""} readOnly=${readOnly} />`;
    default:
      return html`<${Empty} title="There is no such page"><p><a href="#/now">Now</a> is where to begin.</p><//>`;
  }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog[open]")) return;
  if (event.key === "/") {
    const search = document.querySelector("#search");
    if (!search) return;
    event.preventDefault();
    search.focus();
  } else if (event.key in { 1: 0, 2: 0, 3: 0, 4: 0 }) {
    location.hash = PAGES[Number(event.key) - 1][1];
  }
}

// The token was in the address that was opened; from here on it is in a cookie, and not to be seen or sent on.
if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname + location.hash);
document.querySelector("#page").replaceChildren();
render(html`<${Shell} />`, document.querySelector("#page"));
