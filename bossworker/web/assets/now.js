// What the pools do just now.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.module.js";
import { get, post } from "./api.js";
import { Chart } from "./charts.js";
import { bytes, count, KINDS, plural, rate, seconds, share } from "./format.js";
import { Badge, Bar, Empty, Failure, Notice, useDoing, useQuestion } from "./ui.js";

const MOST_POINTS = 1200;

// The charts' past comes once, what is new with each snapshot.
function usePoints(pool) {
  const points = useRef([]);
  const [, paint] = useState(0);
  useEffect(() => {
    points.current = [];
    get(`api/pools/${encodeURIComponent(pool.key)}/history`).then(
      (told) => {
        const last = told.points.length ? told.points[told.points.length - 1][0] : 0;
        points.current = [...told.points, ...points.current.filter((point) => point[0] > last)];
        paint((n) => n + 1);
      },
      () => {},
    );
  }, [pool.key]);
  useEffect(() => {
    const newest = points.current[points.current.length - 1];
    if (pool.point && (!newest || pool.point[0] > newest[0])) points.current = [...points.current.slice(-MOST_POINTS), pool.point];
  }, [pool.point]);
  return points;
}

const Tile = ({ label, value, href, kind = "", children }) => html`<div class=${`tile ${kind}`}>
  <span class="tile-label">${label}</span>
  ${href ? html`<a class="tile-value" href=${href}>${value}</a>` : html`<span class="tile-value">${value}</span>`}
  <span class="tile-more">${children}</span>
</div>`;

const jobsOf = (pool, given = {}) => `#/jobs/${encodeURIComponent(pool.key)}?${new URLSearchParams(given)}`;

function Tiles({ pool }) {
  const [, perSecond, failures, , , p50, p95] = pool.point ?? [];
  const kinds = Object.entries(pool.kinds ?? {}).sort((a, b) => b[1] - a[1]);
  return html`<div class="tiles">
    <${Tile} label="Queued" value=${count(pool.queued)} href=${jobsOf(pool, { status: "queued" })}>${pool.paused ? "paused: none is started" : ""}<//>
    <${Tile} label="Running" value=${count(pool.running)} href=${jobsOf(pool, { status: "running" })}>${`of ${plural(pool.workers.length, "worker")}`}<//>
    <${Tile} label="Done" value=${count(pool.done)} href=${jobsOf(pool, { status: "done" })}>${`${rate((perSecond ?? 0) - (failures ?? 0))} a second`}<//>
    <${Tile} label="Failed" value=${count(pool.failed)} href=${jobsOf(pool, { status: "failed" })} kind=${pool.failed ? "bad" : ""}>
      ${kinds.map(([kind, number]) => html`<a class="kind" href=${jobsOf(pool, { status: "failed", kind })} title=${KINDS[kind] ?? kind}>${kind.replace("_", " ")} ${count(number)}</a>`)}
    <//>
    <${Tile} label="Duration" value=${seconds(p50)}>${p95 === null || p95 === undefined ? "no job has ended of late" : `median; 95 % within ${seconds(p95)}`}<//>
  </div>`;
}

function Charts({ pool }) {
  const points = usePoints(pool);
  const [, perSecond, failures, queued, , , , latency50, latency95] = pool.point ?? [];
  const pace = [{ at: 1, label: "ended", colour: "--accent", fill: true }, { at: 2, label: "failed", colour: "--bad" }];
  const length = [{ at: 3, label: "queued", colour: "--warm", fill: true }];
  const wait = [{ at: 8, label: "95 %", colour: "--violet" }, { at: 7, label: "median", colour: "--accent" }];
  return html`<div class="charts">
    <${Chart} points=${points} series=${pace} format=${short} least=${1} title="Jobs a second" figure=${`${rate(perSecond)}${failures ? `, ${rate(failures)} failed` : ""}`} />
    <${Chart} points=${points} series=${length} format=${short} least=${10} title="Queued" figure=${count(queued)} />
    <${Chart} points=${points} series=${wait} least=${0.001} format=${(value) => (value ? seconds(value) : "0")} title="Latency, added to ended" figure=${latency50 === null || latency50 === undefined ? "–" : `${seconds(latency50)}; 95 % ${seconds(latency95)}`} />
  </div>`;
}

function short(value) {
  if (value >= 1e6) return `${+(value / 1e6).toFixed(1)} M`;
  if (value >= 1e3) return `${+(value / 1e3).toFixed(1)} k`;
  return String(+value.toFixed(2));
}

function Worker({ worker, pool, steer }) {
  const [done, total, text] = worker.progress ?? [];
  const href = worker.id && `#/job/${encodeURIComponent(pool.key)}/${worker.id}`;
  return html`<tr class=${`worker worker-${worker.state}`}>
    <td data-label="Worker" class="number">${worker.index}</td>
    <td data-label="State"><${Badge} kind=${worker.id ? "running" : worker.state}>${worker.id ? "running" : worker.state}<//></td>
    <td data-label="Job" class="wide">
      ${worker.id ? html`<a href=${href}>${worker.name}</a> <span class="quiet-text clip">${worker.text}</span>` : html`<span class="quiet-text">–</span>`}
      ${worker.progress && html`<div class="progress">
        ${total ? html`<${Bar} value=${done / total} label=${`${Math.round((100 * done) / total)} % done`} />` : ""}
        <span class="quiet-text">${total ? `${count(done)} of ${count(total)}` : count(done)}${text ? ` · ${text}` : ""}</span>
      </div>`}
    </td>
    <td data-label="For" class="number">${worker.id ? seconds(worker.seconds) : "–"}</td>
    <td data-label="CPU" class="number">${share(worker.cpu)}</td>
    <td data-label="Memory" class="number">${bytes(worker.rss)}</td>
    <td data-label="Jobs done" class="number">${count(worker.done)}</td>
    <td data-label="Process" class="number quiet-text">${worker.pid || "–"}</td>
    <td class="actions">${worker.id ? html`<a class="button quiet" href=${`${href}?stack`} aria-label=${`Stack of job ${worker.name}`}>Stack</a>` : ""}${worker.id && steer ? html` <button class="quiet" aria-label=${`Cancel job ${worker.name}`} onClick=${() => steer(worker)}>Cancel</button>` : ""}</td>
  </tr>`;
}

function Resize({ pool, doing }) {
  const [wanted, setWanted] = useState(null);
  const value = wanted ?? pool.target;
  const submit = (event) => {
    event.preventDefault();
    doing(() => post(`api/pools/${encodeURIComponent(pool.key)}/resize`, { workers: value }), `resized to ${plural(value, "worker")}`);
    setWanted(null);
  };
  return html`<form class="row tight" onSubmit=${submit}>
    <label class="row tight">Workers
      <input type="number" min="1" max="1024" value=${value} onInput=${(event) => setWanted(Number(event.target.value) || 1)} />
    </label>
    <button type="submit" disabled=${wanted === null || wanted === pool.target}>Resize</button>
  </form>`;
}

// Other handlers that are being tried, and what has become of the last that were.
function Reloading({ reload }) {
  const [hidden, setHidden] = useState(0);
  if (reload.trial !== null) {
    return html`<${Notice} kind="quiet">${reload.trial || "A new handler"} is being tried: the first worker that is through with its job is replaced by one that has it, and if that comes up, the others follow.<//>`;
  }
  if (!reload.error || hidden === reload.tried) return null;
  return html`<div class="row spread nowrap"><div class="grow"><${Failure} text=${`The handler was not reloaded, and the pool goes on with the one that it had: ${reload.error}`} /></div>
    <button class="quiet" onClick=${() => setHidden(reload.tried)}>Hide</button></div>`;
}

export function Pool({ pool, readOnly }) {
  const [doing, told] = useDoing();
  const [setQuestion, dialog] = useQuestion();
  const path = `api/pools/${encodeURIComponent(pool.key)}`;
  if (pool.away) {
    return html`<section class="pool" aria-label=${`Pool ${pool.name}`}>
      <h2>${pool.name} <${Badge} kind="failed">away<//></h2>
      <${Notice}>${pool.away}. This page looks for it again every two seconds.<//>
    </section>`;
  }
  const cancel = (worker) =>
    setQuestion({
      title: `Cancel job ${worker.name}?`,
      text: `It runs in worker ${worker.index}, for ${seconds(worker.seconds)} so far. It is stopped as by a timeout, and its result says "cancelled".`,
      verb: "Cancel the job",
      act: () => post(`api/jobs/${encodeURIComponent(pool.key)}/cancel`, { ids: [worker.id] }),
    });
  const reload = () =>
    setQuestion({
      title: `Reload the handler of ${pool.name}?`,
      text: "A worker is started with it and, if that comes up, all others are replaced, each when it is through with its job. Its module is loaded anew in them; the modules that this one imports are not.",
      field: { label: "Handler", value: pool.reload.handler, hint: "package.module:function" },
      verb: "Reload",
      mild: true,
      act: (handler) => doing(() => post(`${path}/reload`, { handler }), (answer) => (answer.done ? `${handler} is the handler now` : ""), true),
    });
  return html`<section class="pool" aria-label=${`Pool ${pool.name}`}>
    <header class="row spread">
      <h2>${pool.name} ${pool.paused && html`<${Badge} kind="paused">paused<//>`}</h2>
      ${!readOnly && html`<div class="row">
        <${Resize} pool=${pool} doing=${doing} />
        ${pool.paused
          ? html`<button class="primary" onClick=${() => doing(() => post(`${path}/resume`), "jobs start again")}>Resume</button>`
          : html`<button onClick=${() => doing(() => post(`${path}/pause`), "no new job is started; those that run go on")}>Pause</button>`}
        ${pool.reload.offered && html`<button disabled=${pool.reload.trial !== null} onClick=${reload}>Reload…</button>`}
      </div>`}
    </header>
    ${told}
    <${Reloading} reload=${pool.reload} />
    ${pool.start_error && html`<${Notice}>A worker cannot be started: ${pool.start_error.trim().split("\n").pop()}<details><summary>All of it</summary><pre tabindex="0">${pool.start_error}</pre></details><//>`}
    <${Tiles} pool=${pool} />
    <${Charts} pool=${pool} />
    <div class="card">
      <table class="workers">
        <thead><tr><th class="number">Worker</th><th>State</th><th class="wide">Job</th><th class="number">For</th><th class="number">CPU</th><th class="number">Memory</th><th class="number">Jobs done</th><th class="number">Process</th><td></td></tr></thead>
        <tbody>${pool.workers.map((worker) => html`<${Worker} key=${worker.index} worker=${worker} pool=${pool} steer=${readOnly ? null : cancel} />`)}</tbody>
      </table>
      ${!pool.workers.length && html`<${Empty} title="No worker is up"><p>The pool is starting them, or cannot: its log says why.</p><//>`}
    </div>
    ${pool.restarts > 0 && html`<p class="quiet-text">${plural(pool.restarts, "worker")} replaced so far: ${Object.entries(pool.reasons).map(([why, number]) => `${why.replaceAll("_", " ")} ${count(number)}`).join(", ")}.</p>`}
    ${dialog}
  </section>`;
}

const JOURNAL_COUNTS = ["queued", "running", "done", "failed", "cancelled", "interrupted"];

// What is on the disk, whether or not a program has it open.
function Journals({ journals }) {
  if (!journals.length) return null;
  return html`<section class="pool" aria-label="Journals">
    <h2>Journals</h2>
    <div class="card"><table class="workers journals">
      <thead><tr><th>Journal</th><th class="wide">Opened by</th>${JOURNAL_COUNTS.map((name) => html`<th class="number">${name}</th>`)}</tr></thead>
      <tbody>${journals.map((one) => html`<tr key=${one.key}>
        <td data-label="Journal"><a href=${`#/journal/${encodeURIComponent(one.key)}`} title=${one.path}>${one.key}</a></td>
        <td class="wide">${one.away ? html`<span class="bad-text">${one.away}</span>` : one.owner ? `process ${one.owner}` : html`<span class="quiet-text">no program${one.counts.queued ? ": what is queued waits for one" : ""}</span>`}</td>
        ${JOURNAL_COUNTS.map((name) => html`<td data-label=${name} class=${`number ${(name === "failed" || name === "interrupted") && one.counts[name] ? "bad-text" : ""}`}>${count(one.counts[name])}</td>`)}
      </tr>`)}</tbody>
    </table></div>
  </section>`;
}

export function Now({ now, readOnly }) {
  if (!now) return html`<${Empty} title="Looking for pools…" />`;
  if (!now.pools.length) {
    return html`<${Journals} journals=${now.journals} /><${Empty} title="No pool is open">
      <p>A pool is seen here as soon as its program opens a door:</p>
      <pre>pool = bossworker.BossWorker(handler)<br />pool.listen()</pre>
      <p>or shows its own page by <code>pool.web()</code>. Detached commands are under <a href="#/commands">Jobs</a>, tasks under <a href="#/tasks">Tasks</a>.</p>
    <//>`;
  }
  return html`${now.pools.map((pool) => html`<${Pool} key=${pool.key} pool=${pool} readOnly=${readOnly} />`)}<${Journals} journals=${now.journals} />`;
}
