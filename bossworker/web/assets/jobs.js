// The list of jobs: of a pool, a journal, or of commands with job directories. Only what is seen of it is fetched and drawn.

import { html, useCallback, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.module.js";
import { get, post } from "./api.js";
import { count, exactly, KINDS, moment, plural, seconds } from "./format.js";
import { sourceOf } from "./sources.js";
import { Empty, Notice, Status, useDoing, useQuestion } from "./ui.js";

const ROW = 36; // pixels
const HEAD = 34; // of the line above the rows
const WIDE_ROW = 62; // of a narrow screen, where a row has two lines
const PART = 100; // rows that are fetched at a time
const MOST_ROWS = 300_000; // a browser draws no taller list
const REFRESH = 1000; // milliseconds
const AGES = { "": "any time", 60: "last minute", 600: "last 10 minutes", 3600: "last hour", 86400: "last day" };

function wanted(source, filter) {
  const { status, kind, age, text } = filter;
  const since = age ? Date.now() / 1000 - Number(age) : "";
  return source.times ? { status, kind, text, since } : { status, text };
}

// The rows that are in sight, and how many there are: fetched in parts, and again while they are seen.
function useRows(source, filter) {
  const parts = useRef(new Map());
  const sight = useRef([0, 0]);
  const serial = useRef(0);
  const [state, setState] = useState({ total: null, trouble: "", searched: null });
  const key = JSON.stringify([source.list, filter]);
  const fetchPart = useCallback(
    async (part, mine) => {
      try {
        const told = await get(source.api, { ...wanted(source, filter), offset: part * PART, limit: PART });
        if (serial.current !== mine) return;
        parts.current.set(part, told.rows);
        setState({ total: told.total, trouble: "", searched: told.searched ?? null, all: told.all ?? null, queues: told.trouble ?? "" });
      } catch (error) {
        if (serial.current === mine) setState((before) => ({ ...before, trouble: error.message }));
      }
    },
    [key],
  );
  const look = useCallback(
    (first, last) => {
      sight.current = [first, last];
      for (let part = Math.floor(first / PART); part <= Math.floor(last / PART); part += 1) {
        if (!parts.current.has(part)) {
          parts.current.set(part, null);
          fetchPart(part, serial.current);
        }
      }
    },
    [fetchPart],
  );
  useEffect(() => {
    serial.current += 1;
    parts.current = new Map();
    const mine = serial.current;
    setState({ total: null, trouble: "", searched: null });
    fetchPart(0, mine);
    const timer = setInterval(() => {
      if (document.hidden) return;
      const [first, last] = sight.current.map((row) => Math.floor(row / PART));
      for (const part of [...parts.current.keys()]) if (part < first || part > last) parts.current.delete(part);
      for (let part = first; part <= last; part += 1) fetchPart(part, mine);
    }, REFRESH);
    return () => {
      clearInterval(timer);
      serial.current += 1;
    };
  }, [fetchPart]);
  const row = (at) => parts.current.get(Math.floor(at / PART))?.[at % PART];
  return { ...state, row, look };
}

function Row({ row, at, height, source, chosen, active, onChoose }) {
  if (!row) return html`<div class="job" role="row" aria-rowindex=${at + 2} style=${{ top: `${at * height}px`, height: `${height}px` }}><span role="gridcell" class="quiet-text">…</span></div>`;
  const text = row.error ?? row.text ?? "";
  return html`<div id=${`row-${at}`} class=${`job ${active ? "active" : ""} ${chosen ? "chosen" : ""}`} role="row" aria-rowindex=${at + 2} aria-selected=${chosen} style=${{ top: `${at * height}px`, height: `${height}px` }}>
    ${onChoose && html`<span role="gridcell" class="job-choice"><input type="checkbox" tabindex="-1" aria-label=${`Choose job ${row.name}`} checked=${chosen} onChange=${() => onChoose(row)} /></span>`}
    <span role="gridcell" class="job-id"><a tabindex="-1" href=${source.one(row.id)}>${row.title || row.name}</a></span>
    <span role="gridcell" class="job-status"><${Status} row=${row} /></span>
    <span role="gridcell" class=${`job-text ${row.error ? "bad-text" : ""}`} title=${text}>${text || html`<span class="quiet-text">–</span>`}${row.error && row.text ? html`<span class="quiet-text"> · ${row.text}</span>` : ""}</span>
    <span role="gridcell" class="job-worker number">${row.worker >= 0 ? row.worker : "–"}</span>
    <span role="gridcell" class="job-seconds number">${seconds(row.seconds)}</span>
    <span role="gridcell" class="job-time number" title=${exactly(row.ended ?? row.added)}>${moment(row.ended ?? row.started ?? row.added)}</span>
  </div>`;
}

function List({ rows, source, chosen, onChoose }) {
  const box = useRef();
  const [top, setTop] = useState(0);
  const [size, setSize] = useState({ height: 600, width: 1000 });
  const [active, setActive] = useState(0);
  const narrow = size.width < 640;
  const height = narrow ? WIDE_ROW : ROW;
  const head = narrow ? 0 : HEAD;
  const total = Math.min(rows.total ?? 0, MOST_ROWS);
  const first = Math.max(0, Math.floor(top / height) - 10);
  const last = Math.min(total - 1, Math.ceil((top + size.height) / height) + 10);
  useEffect(() => rows.look(first, Math.max(first, last)), [first, last, rows.look]);
  useEffect(() => {
    const watch = new ResizeObserver(() => box.current && setSize({ height: box.current.clientHeight, width: box.current.clientWidth }));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  const go = (to) => {
    const at = Math.max(0, Math.min(total - 1, to));
    setActive(at);
    const place = box.current;
    if (at * height < place.scrollTop) place.scrollTop = at * height;
    if ((at + 1) * height + head > place.scrollTop + place.clientHeight) place.scrollTop = (at + 1) * height + head - place.clientHeight;
  };
  const page = Math.max(1, Math.floor(size.height / height) - 1);
  const onKey = (event) => {
    const steps = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: total - 1 };
    const row = rows.row(active);
    if (event.key in steps) go(steps[event.key]);
    else if (event.key === "Enter" && row) location.hash = source.one(row.id);
    else if (event.key === " " && row && onChoose) onChoose(row);
    else return;
    event.preventDefault();
  };
  const shown = [];
  for (let at = first; at <= last; at += 1) {
    const row = rows.row(at);
    shown.push(html`<${Row} key=${at} row=${row} at=${at} height=${height} source=${source} chosen=${row ? chosen.has(row.id) : false} active=${at === active} onChoose=${onChoose} />`);
  }
  return html`<div class="jobs card">
    <div ref=${box} class="job-scroll" role="grid" tabindex="0" aria-label="Jobs" aria-multiselectable="true" aria-rowcount=${total + 1} aria-activedescendant=${rows.row(active) ? `row-${active}` : undefined}
      onScroll=${(event) => setTop(event.target.scrollTop)} onKeyDown=${onKey}>
      <div class="job job-head" role="row">
        ${onChoose && html`<span role="columnheader" class="job-choice"><span class="visually-hidden">Chosen</span></span>`}<span role="columnheader" class="job-id">Job</span><span role="columnheader" class="job-status">Status</span><span role="columnheader" class="job-text">What</span><span role="columnheader" class="job-worker number">Worker</span><span role="columnheader" class="job-seconds number">Took</span><span role="columnheader" class="job-time number">When</span>
      </div>
      <div role="rowgroup" class="job-body" style=${{ height: `${total * height}px` }}>${shown}</div>
    </div>
  </div>`;
}

const emptyFilter = { status: "", kind: "", age: "", text: "" };

function Filters({ source, filter, numbers, onChange }) {
  const [text, setText] = useState(filter.text);
  useEffect(() => setText(filter.text), [filter.text]);
  useEffect(() => {
    if (text === filter.text) return undefined;
    const timer = setTimeout(() => onChange({ text }), 250);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<div class="filters">
    <div class="tabs" role="group" aria-label="Status">
      ${source.tabs.map((status) => html`<button key=${status} aria-pressed=${filter.status === status} onClick=${() => onChange({ status, kind: status === "failed" ? filter.kind : "" })}>${status || "all"} ${numbers ? html`<span class="tab-count">${count(numbers[status])}</span>` : ""}</button>`)}
    </div>
    ${source.kinds && html`<label>Kind <select value=${filter.kind} onChange=${(event) => onChange({ kind: event.target.value, status: event.target.value ? "failed" : filter.status })}>
      <option value="">any</option>
      ${Object.entries(KINDS).map(([kind, words]) => html`<option value=${kind}>${kind.replace("_", " ")}: ${words}</option>`)}
    </select></label>
    <label>When <select value=${filter.age} onChange=${(event) => onChange({ age: event.target.value })}>
      ${Object.entries(AGES).map(([age, words]) => html`<option value=${age}>${words}</option>`)}
    </select></label>`}
    <input id="search" type="search" placeholder="Search  (press /)" aria-label="Search in ids, errors and jobs" value=${text} onInput=${(event) => setText(event.target.value)} />
  </div>`;
}

// What has come of it: that of some of them nothing did is said, too.
const outcome = (order, what) => (answer) => {
  const number = answer.count === answer.of ? plural(answer.count, what) : `${count(answer.count)} of ${plural(answer.of, what)}`;
  return [`${number} ${order === "retry" ? (answer.count === 1 ? "runs again" : "run again") : "cancelled"}`, ...(answer.wrong ?? [])].join("; ");
};

function questions(source, filter, rows, chosen, doing) {
  const ids = [...chosen];
  const query = wanted(source, filter);
  const ask = (order, told, number, all) => ({
    title: `${order === "retry" ? "Run" : "Cancel"} ${all ? "all " : ""}${plural(number, source.what)}${order === "retry" ? " again" : ""}?`,
    text: order === "retry" ? source.again : source.stop,
    verb: order === "retry" ? "Run again" : "Cancel",
    mild: order === "retry",
    act: () => doing(() => post(`${source.api}/${order}`, told), outcome(order, source.what), true),
  });
  return {
    retryChosen: () => ask("retry", { ids }, ids.length),
    cancelChosen: () => ask("cancel", { ids }, ids.length),
    retryAll: () => ask("retry", { query }, rows.total, true),
    cancelAll: () => ask("cancel", { query }, rows.total, true),
    forget: () => ({
      title: filter.status ? `Forget all jobs that are ${filter.status}?` : "Forget all jobs that have ended?",
      text: "They and their results are deleted from the journal, and nobody gets them back. Those whose results the program has not had yet stay, unless you say so. (A search, or a time, does not matter here.)",
      choice: "also those whose results no program has had",
      verb: "Forget",
      act: (_, all) => doing(() => post(`${source.api}/forget`, { status: filter.status, unretrieved: all }), (answer) => `${plural(answer.count, source.what)} forgotten`, true),
    }),
  };
}

// How many there are of each status, as far as that comes by itself.
function numbersOf(pool, journal) {
  if (pool && !pool.away) return { "": pool.queued + pool.running + pool.done + pool.failed, ...pool };
  if (journal) return { "": Object.values(journal.counts).reduce((sum, one) => sum + one, 0), ...journal.counts };
  return null;
}

function Sources({ source, pools, journals }) {
  const here = source.key && (source.kind === "pool" ? !pools.some((one) => one.key === source.key) : !journals.some((one) => one.key === source.key));
  return html`<label>Of <select value=${source.list} onChange=${(event) => { location.hash = event.target.value; }}>
    ${pools.map((one) => html`<option value=${sourceOf("pool", one.key).list}>pool ${one.name}</option>`)}
    ${journals.map((one) => html`<option value=${sourceOf("journal", one.key).list}>journal ${one.key}</option>`)}
    ${here ? html`<option value=${source.list}>${source.kind} ${source.key} (away)</option>` : ""}
    <option value=${sourceOf("commands").list}>commands (run detached or queued, or kept by pools)</option>
  </select></label>`;
}

const Owner = ({ journal }) => html`<p class="quiet-text owner" title=${journal.path}>${journal.path}: ${journal.owner ? `process ${journal.owner} has it open` : "no program has it open; what is queued waits for one"}</p>`;

export function Jobs({ now, kind, name, given, readOnly }) {
  const source = useMemo(() => sourceOf(kind, name), [kind, name]);
  const filter = useMemo(() => ({ ...emptyFilter, ...given }), [JSON.stringify(given)]);
  const [pools, journals] = [now?.pools ?? [], now?.journals ?? []];
  const pool = source.kind === "pool" ? pools.find((one) => one.key === source.key) : null;
  const journal = source.kind === "journal" ? journals.find((one) => one.key === source.key) : null;
  const numbers = numbersOf(pool, journal);
  const rows = useRows(source, filter);
  const [chosen, setChosen] = useState(new Set());
  const [setQuestion, dialog] = useQuestion(() => setChosen(new Set()));
  useEffect(() => setChosen(new Set()), [source, filter]);
  useEffect(() => {
    if (kind !== "pool" || name || !now) return;
    location.replace(pools.length ? sourceOf("pool", pools[0].key).list : journals.length ? sourceOf("journal", journals[0].key).list : sourceOf("commands").list);
  }, [source, Boolean(now)]);
  const onChange = (changed) => {
    const left = Object.entries({ ...filter, ...changed }).filter(([, value]) => value !== "");
    history.replaceState(null, "", `${source.list}?${new URLSearchParams(left)}`);
    dispatchEvent(new HashChangeEvent("hashchange"));
  };
  const choose = (row) => {
    const after = new Set(chosen);
    if (!after.delete(row.id)) after.add(row.id);
    setChosen(after);
  };
  const [doing, told] = useDoing();
  const ask = questions(source, filter, rows, chosen, doing);
  const open = filter.status === "queued" || filter.status === "running";
  const ended = ["failed", "cancelled", "interrupted"].includes(filter.status);
  const filtered = filter.status || filter.text || filter.kind || filter.age;
  return html`<section>
    <div class="row spread">
      <h1>Jobs</h1>
      <${Sources} source=${source} pools=${pools} journals=${journals} />
    </div>
    ${journal && html`<${Owner} journal=${journal} />`}
    <${Filters} source=${source} filter=${filter} numbers=${numbers} onChange=${onChange} />
    <div class="row bulk" role="group" aria-label="Actions">
      <span class="quiet-text" role="status">${rows.total === null ? (rows.trouble ? "" : "Looking…") : plural(rows.total, source.what)}${rows.searched !== null && rows.searched < rows.all ? `, among the newest ${count(rows.searched)}` : ""}${rows.total > MOST_ROWS ? `; the newest ${count(MOST_ROWS)} are listed` : ""}${chosen.size ? `; ${count(chosen.size)} chosen` : ""}</span>
      ${!readOnly && html`<span class="row">
        ${chosen.size > 0 && html`<button onClick=${() => setQuestion(ask.retryChosen())}>Run chosen again</button>`}
        ${chosen.size > 0 && source.canCancel && html`<button onClick=${() => setQuestion(ask.cancelChosen())}>Cancel chosen</button>`}
        ${!chosen.size && ended && rows.total > 0 && html`<button onClick=${() => setQuestion(ask.retryAll())}>Run all ${count(rows.total)} again</button>`}
        ${!chosen.size && open && source.canCancel && rows.total > 0 && html`<button onClick=${() => setQuestion(ask.cancelAll())}>Cancel all ${count(rows.total)}</button>`}
        ${!chosen.size && source.canForget && !open && rows.total > 0 && html`<button class="danger" onClick=${() => setQuestion(ask.forget())}>Forget…</button>`}
      </span>`}
    </div>
    ${told}
    ${rows.trouble && html`<${Notice}>${rows.trouble}<//>`}
    ${rows.queues && html`<${Notice}>Nobody sees to what is queued: ${rows.queues}<//>`}
    ${rows.total === 0
      ? html`<${Empty} title=${filtered ? `No ${source.what} fits` : source.none[0]}><p>${filtered ? html`<a href=${source.list}>Show all</a>` : source.none[1]}</p><//>`
      : rows.total === null && rows.trouble ? "" : html`<${List} rows=${rows} source=${source} chosen=${chosen} onChoose=${readOnly ? null : choose} />`}
    ${dialog}
  </section>`;
}
