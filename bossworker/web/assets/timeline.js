// Which worker had which jobs when: a lane a worker, drawn on a canvas.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.module.js";
import { get, link } from "./api.js";
import { count, exactly, moment, plural, seconds } from "./format.js";
import { Empty, Notice } from "./ui.js";

const [LANE, GAP, LEFT, TOP] = [22, 4, 44, 22];
const REFRESH = 500;
const WIDTHS = { 5: "5 s", 15: "15 s", 60: "1 min", 300: "5 min", 900: "15 min", 3600: "1 h" };
const [LEAST, MOST] = [0.002, 6 * 3600];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colourOf = (kind) => (kind === null ? "--accent" : kind === "cancelled" ? "--quiet" : kind === "timeout" ? "--warm" : "--bad");

function ticks(since, until, width) {
  const steps = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
  const step = steps.find((one) => ((until - since) / one) * 90 <= width) ?? 7200;
  const found = [];
  for (let at = Math.ceil(since / step) * step; at <= until; at += step) found.push(at);
  return [found, step];
}

function label(at, step) {
  const text = moment(at);
  return step >= 1 ? text : `${text}.${String(Math.round((at % 1) * 1000)).padStart(3, "0")}`;
}

function draw(canvas, seen, since, until, running) {
  const lanes = [...new Set([...Object.keys(seen.lanes), ...Object.keys(running)])].map(Number).sort((a, b) => a - b);
  const width = canvas.clientWidth;
  const height = TOP + Math.max(1, lanes.length) * (LANE + GAP) + GAP;
  const scale = devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  const x = (at) => LEFT + ((at - since) / (until - since)) * (width - LEFT);
  const [marks, step] = ticks(since, until, width - LEFT);
  for (const at of marks) {
    pen.fillStyle = colour("--line");
    pen.fillRect(x(at), TOP, 1, height);
    pen.fillStyle = colour("--quiet");
    const text = label(at, step);
    if (x(at) + 8 + pen.measureText(text).width < width) pen.fillText(text, x(at) + 4, TOP / 2);
  }
  const boxes = [];
  lanes.forEach((lane, row) => {
    const y = TOP + GAP + row * (LANE + GAP);
    pen.fillStyle = colour("--quiet");
    pen.textAlign = "right";
    pen.fillText(String(lane), LEFT - 10, y + LANE / 2);
    pen.textAlign = "left";
    pen.fillStyle = colour("--lane");
    pen.fillRect(LEFT, y, width - LEFT, LANE);
    const spans = [...(seen.lanes[lane] ?? []), ...(running[lane] ?? [])];
    for (const span of spans) drawSpan(pen, span, x, y, width, boxes);
  });
  return boxes;
}

function drawSpan(pen, span, x, y, width, boxes) {
  const [start, end, name, , jobs, failed, kind, runs] = span;
  const [left, right] = [Math.max(LEFT, x(start)), Math.min(width, x(end))];
  if (right < LEFT || left > width) return;
  const wide = Math.max(1, right - left - (right - left > 3 ? 1 : 0));
  pen.fillStyle = colour(runs ? "--running" : failed && failed < jobs ? "--accent" : colourOf(failed ? kind : null));
  pen.fillRect(left, y, wide, LANE);
  if (failed && failed < jobs) {
    pen.fillStyle = colour("--bad");
    const share = Math.max(3, (LANE * failed) / jobs);
    pen.fillRect(left, y + LANE - share, wide, share);
  }
  if (wide > 46) {
    pen.fillStyle = colour("--on-accent");
    const text = jobs > 1 ? `${count(jobs)} jobs` : name;
    if (pen.measureText(text).width < wide - 8) pen.fillText(text, left + 5, y + LANE / 2);
  }
  boxes.push([left, y, Math.max(wide, 2), span]);
}

export function Timeline({ now, source }) {
  const pools = now?.pools ?? [];
  const pool = pools.find((one) => one.key === source);
  const canvas = useRef();
  const seen = useRef({ lanes: {}, since: 0, until: 0 });
  const boxes = useRef([]);
  const drag = useRef(null);
  const [view, setView] = useState({ width: 60, until: null }); // until: null is now
  const [hover, setHover] = useState(null);
  const [trouble, setTrouble] = useState("");
  const workers = useRef([]);
  workers.current = pool?.workers ?? [];
  useEffect(() => {
    if (source === "" && pools.length) location.replace(`#/timeline/${encodeURIComponent(pools[0].key)}`);
  }, [source, pools.length]);

  const paint = () => {
    if (!canvas.current) return;
    const until = view.until ?? Date.now() / 1000;
    const running = {};
    for (const worker of workers.current) {
      if (worker.id && view.until === null) running[worker.index] = [[until - worker.seconds, until, worker.name, worker.id, 1, 0, null, true]];
      else running[worker.index] ??= [];
    }
    boxes.current = draw(canvas.current, seen.current, until - view.width, until, running);
  };
  useEffect(() => {
    if (!source) return undefined;
    let over = false;
    let timer;
    const look = async () => {
      if (!document.hidden) {
        const until = view.until ?? Date.now() / 1000;
        try {
          const told = await get(`api/pools/${encodeURIComponent(source)}/timeline`, { since: until - view.width, until });
          if (over) return;
          seen.current = told;
          setTrouble("");
        } catch (error) {
          if (over) return;
          setTrouble(error.message);
        }
        paint();
      }
      if (!over && view.until === null) timer = setTimeout(look, REFRESH);
    };
    look();
    let frame = requestAnimationFrame(function step() {
      if (view.until === null && !document.hidden) paint();
      if (!over) frame = requestAnimationFrame(step);
    });
    return () => {
      over = true;
      clearTimeout(timer);
      cancelAnimationFrame(frame);
    };
  }, [source, view]);
  useEffect(() => {
    const watch = new ResizeObserver(paint);
    if (canvas.current) watch.observe(canvas.current);
    return () => watch.disconnect();
  }, [view, Boolean(pool)]);

  const zoom = (factor, share = 1) => {
    const until = view.until ?? Date.now() / 1000;
    const width = Math.min(MOST, Math.max(LEAST, view.width * factor));
    const at = until - view.width * (1 - share);
    setView({ width, until: share === 1 && view.until === null ? null : at + width * (1 - share) });
  };
  const move = (share) => setView({ ...view, until: (view.until ?? Date.now() / 1000) + view.width * share });
  const shareOf = (event) => Math.max(0, Math.min(1, (event.offsetX - LEFT) / (canvas.current.clientWidth - LEFT)));
  const spanAt = (event) => boxes.current.findLast(([left, y, wide]) => event.offsetX >= left - 1 && event.offsetX <= left + wide + 1 && event.offsetY >= y && event.offsetY <= y + LANE)?.[3];
  const onWheel = (event) => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, shareOf(event));
  };
  const onPointerMove = (event) => {
    if (drag.current) {
      const { from, until } = drag.current;
      const moved = ((from - event.clientX) / (canvas.current.clientWidth - LEFT)) * view.width;
      if (Math.abs(from - event.clientX) > 3) drag.current.moved = true;
      if (drag.current.moved) setView({ ...view, until: until + moved });
      return;
    }
    setHover(spanAt(event) ?? null);
  };
  const onPointerUp = (event) => {
    const moved = drag.current?.moved;
    drag.current = null;
    const span = moved ? null : spanAt(event);
    if (span && span[4] === 1) location.hash = `#/job/${encodeURIComponent(source)}/${span[3]}`;
    else if (span) setView({ width: Math.max(LEAST, (span[1] - span[0]) * 2), until: span[1] + (span[1] - span[0]) / 2 });
  };
  const onKey = (event) => {
    const acts = { "+": () => zoom(0.8), "=": () => zoom(0.8), "-": () => zoom(1.25), ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2), Home: () => setView({ ...view, until: null }) };
    if (!(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  };
  if (now && !pools.length) return html`<section><h1>Timeline</h1><${Empty} title="No pool is open"><p>A pool is seen here as soon as its program calls <code>pool.listen()</code> or <code>pool.web()</code>.</p><//></section>`;
  return html`<section>
    <div class="row spread">
      <h1>Timeline</h1>
      <div class="row">
        <label>Of <select value=${source} onChange=${(event) => { location.hash = `#/timeline/${encodeURIComponent(event.target.value)}`; }}>${pools.map((one) => html`<option value=${one.key}>pool ${one.name}</option>`)}</select></label>
        <label>Shows <select value=${String(view.width in WIDTHS ? view.width : "")} onChange=${(event) => setView({ ...view, width: Number(event.target.value) })}>
          ${!(view.width in WIDTHS) && html`<option value="">${seconds(view.width)}</option>`}
          ${Object.entries(WIDTHS).map(([width, words]) => html`<option value=${width}>${words}</option>`)}
        </select></label>
        <button aria-label="Zoom in" onClick=${() => zoom(0.5)}>+</button><button aria-label="Zoom out" onClick=${() => zoom(2)}>−</button>
        ${view.until === null ? html`<button onClick=${() => setView({ ...view, until: Date.now() / 1000 })}>Hold</button>` : html`<button class="primary" onClick=${() => setView({ ...view, until: null })}>Live</button>`}
        <a class="button" href=${link(`api/pools/${encodeURIComponent(source)}/trace`)} download>Export trace</a>
      </div>
    </div>
    ${trouble && html`<${Notice}>${trouble}<//>`}
    <div class="card timeline">
      <canvas ref=${canvas} tabindex="0" role="img" aria-label=${`Lanes of ${plural(workers.current.length, "worker")}: plus and minus zoom, arrows move, Home is now`}
        onWheel=${onWheel} onKeyDown=${onKey} onPointerDown=${(event) => { drag.current = { from: event.clientX, until: view.until ?? Date.now() / 1000 }; }} onPointerMove=${onPointerMove} onPointerUp=${onPointerUp} onPointerLeave=${() => { drag.current = null; setHover(null); }}></canvas>
    </div>
    <p class="hover" aria-live="off">${hover
      ? html`<strong>${hover[4] > 1 ? `${count(hover[4])} jobs, from ${hover[2]} on` : `job ${hover[2]}`}</strong> · ${hover[7] ? `runs for ${seconds(hover[1] - hover[0])}` : seconds(hover[1] - hover[0])} · ${exactly(hover[0]).slice(11, 23)}${hover[5] ? ` · ${hover[4] > 1 ? `${count(hover[5])} failed` : hover[6]}` : ""}`
      : html`<span class="quiet-text">A lane a worker. Wheel zooms, dragging moves, a click opens the job. <span class="legend"><i class="swatch swatch-accent"></i>ended well <i class="swatch swatch-running"></i>runs <i class="swatch swatch-bad"></i>failed <i class="swatch swatch-warm"></i>timed out</span></span>`}</p>
  </section>`;
}
