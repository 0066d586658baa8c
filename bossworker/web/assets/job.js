// One job: of a pool, or a command with a job directory.

import { html, useCallback, useEffect, useRef, useState } from "./vendor/htm-preact.module.js";
import { get, post } from "./api.js";
import { bytes, count, exactly, KINDS, moment, seconds, taken } from "./format.js";
import { sourceOf } from "./sources.js";
import { Bar, Copy, Empty, Notice, Status, useDoing, usePolled, useQuestion } from "./ui.js";

const REFRESH = 500; // milliseconds
const MOST_SHOWN = 200_000; // characters of a stream
const MOST_LINES = 2000; // that are shown

export const Text = ({ title, text, open = true }) => html`<div class="card block">
  <span class="copy"><${Copy} text=${text} /></span>
  <details open=${open}><summary>${title}</summary><pre tabindex="0" aria-label=${title}>${text}</pre></details>
</div>`;

const Fields = ({ rows }) => html`<dl class="fields card">
  ${rows.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== "–").map(([name, value, title]) => html`<div class=${String(value).length > 24 ? "long" : ""}><dt>${name}</dt><dd title=${title ?? ""}>${value}</dd></div>`)}
</dl>`;

// A job, or a result, by its keys.
const Content = ({ title, rows }) => html`<div class="card block"><div class="block-head">${title}</div><dl class="content">${rows.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></div>`;

// Where its time went: waiting, and running.
function States({ job }) {
  const start = job.started ?? (job.seconds !== undefined && job.status === "running" ? Date.now() / 1000 - job.seconds : null);
  const end = job.ended ?? Date.now() / 1000;
  if (!job.added || !start || end < job.added) return null;
  const whole = Math.max(end - job.added, 1e-6);
  const waited = Math.max(0, start - job.added);
  return html`<figure class="card states">
    <div class="states-bar" role="img" aria-label=${`waited ${seconds(waited)}, ran ${seconds(end - start)}`}>
      <span class="state-waited" style=${{ width: `${(100 * waited) / whole}%` }}></span>
      <span class=${job.status === "failed" ? "state-failed" : "state-ran"} style=${{ width: `${100 - (100 * waited) / whole}%` }}></span>
    </div>
    <figcaption class="row spread">
      <span>added ${moment(job.added)}</span><span>waited ${seconds(waited)}</span><span>ran ${seconds(end - start)}</span><span>${job.ended ? `ended ${moment(job.ended)}` : "runs"}</span>
    </figcaption>
  </figure>`;
}

// What is asked for again and again from where it ended, while the tab is seen: `take` gets each answer, {next, running, ...},
// and says whether more is likely to be there at once.
function useFollowed(path, given, from, take, restart) {
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    let [over, next, timer] = [false, from, null];
    restart();
    const look = async () => {
      let pause = REFRESH;
      if (!document.hidden) {
        try {
          const told = await get(path, { ...given, since: next });
          if (over) return;
          setTrouble("");
          next = told.next;
          pause = take(told) ? 50 : told.running ? REFRESH : 4 * REFRESH;
        } catch (error) {
          if (!over) setTrouble(error.message);
        }
      }
      if (!over) timer = setTimeout(look, pause);
    };
    look();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [path, JSON.stringify(given)]);
  return trouble;
}

// A text that grows: its end stays in sight, unless somebody has scrolled away from it.
function Growing({ title, more = "", text, trouble, children }) {
  const box = useRef();
  const stuck = useRef(true);
  useEffect(() => {
    if (stuck.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [children]);
  const onScroll = (event) => {
    const { scrollTop, scrollHeight, clientHeight } = event.target;
    stuck.current = scrollTop + clientHeight >= scrollHeight - 8;
  };
  return html`<div class="card block">
    <div class="row spread block-head"><span>${title} ${more && html`<span class="quiet-text">${more}</span>`}</span><${Copy} text=${text} /></div>
    ${trouble && html`<${Notice}>${trouble}<//>`}
    <pre ref=${box} class="output" tabindex="0" aria-label=${title} onScroll=${onScroll}>${children}</pre>
  </div>`;
}

const Nothing = ({ text = "nothing yet" }) => html`<span class="quiet-text">${text}</span>`;

// A stream, as it comes. `path` answers with {since, next, text, running}.
export function Output({ path, stream }) {
  const [shown, setShown] = useState({ text: "", from: 0 });
  const [{ gone, running }, setState] = useState({ gone: false, running: true });
  const take = (told) => {
    setState({ gone: Boolean(told.gone), running: told.running });
    if (told.text) setShown((before) => ({ text: (before.text + told.text).slice(-MOST_SHOWN), from: before.text ? before.from : told.since }));
    return told.next > told.since;
  };
  const trouble = useFollowed(path, { stream }, -65536, take, () => setShown({ text: "", from: 0 }));
  const more = gone ? "its files are gone, as those of a command that has ended well" : shown.from > 0 ? `from byte ${count(shown.from)} on` : "";
  return html`<${Growing} title=${stream} more=${more} text=${shown.text} trouble=${trouble}>${shown.text || html`<${Nothing} text=${running ? "nothing yet" : gone ? "nothing was seen of it" : "nothing"} />`}<//>`;
}

// What a job prints and logs, line by line. `path` answers with {first, next, lines, running}.
function Lines({ path }) {
  const [shown, setShown] = useState({ lines: [], missed: 0, next: 0 });
  const take = (told) => {
    if (told.lines.length) {
      setShown((before) => {
        const anew = told.first < before.next; // it was forgotten, and has begun again
        const lines = [...(anew ? [] : before.lines), ...told.lines];
        return { lines: lines.slice(-MOST_LINES), missed: anew ? 0 : before.missed + told.first - before.next + Math.max(0, lines.length - MOST_LINES), next: told.next };
      });
    }
    return false;
  };
  const trouble = useFollowed(path, {}, 0, take, () => setShown({ lines: [], missed: 0, next: 0 }));
  const text = shown.lines.map(([, line]) => line).join("\n");
  return html`<${Growing} title="What it prints and logs" more=${shown.missed ? `without the first ${count(shown.missed)} lines` : ""} text=${text} trouble=${trouble}>${shown.lines.length ? shown.lines.map(([stream, line], at) => html`<span key=${shown.missed + at} class=${stream === "stderr" ? "bad-text" : ""}>${line}${"\n"}</span>`) : html`<${Nothing} />`}<//>`;
}

// What a job of a pool writes: lines, or the files of a command; or why there is nothing to be seen.
function Written({ path, job }) {
  const { inside, status } = job;
  if (inside.directory) return html`<${Output} path=${`${path}/output`} stream="stdout" /><${Output} path=${`${path}/output`} stream="stderr" />`;
  if (inside.logs === "relay") return inside.written || status === "running" ? html`<${Lines} path=${`${path}/lines`} />` : null;
  if (status !== "running" || !inside.logs) return null;
  return html`<p class="quiet-text">${inside.logs === "discard" ? "What its jobs print is discarded, as the pool was told by" : "What its jobs print goes where its program prints, and is not seen here, with"} <code>logs="${inside.logs}"</code>; with <code>logs="relay"</code> it is shown here, line by line. Of commands, the output is shown in any case.</p>`;
}

// The messages of a task's stream `data`. `path` answers with {since, next, messages, running}.
export function Messages({ path }) {
  const [shown, setShown] = useState({ messages: [], from: 0 });
  const take = (told) => {
    if (told.messages.length) setShown((before) => ({ messages: [...before.messages, ...told.messages].slice(-MOST_LINES), from: before.messages.length ? before.from : told.since }));
    return told.next > told.since;
  };
  const trouble = useFollowed(path, {}, -50, take, () => setShown({ messages: [], from: 0 }));
  return html`<${Growing} title="data" more=${shown.from > 0 ? `from message ${count(shown.from)} on` : ""} text=${shown.messages.join("\n")} trouble=${trouble}>${shown.messages.length ? shown.messages.map((message, at) => html`<span key=${at} class="message">${message}</span>`) : html`<${Nothing} text="no message yet" />`}<//>`;
}

function Stack({ path, wanted, title }) {
  const [doing, told] = useDoing();
  const [text, setText] = useState(null);
  const look = () => doing(async () => setText((await get(path)).text));
  useEffect(() => {
    if (wanted) look();
  }, [wanted, path]);
  return html`<div class="card block">
    <div class="row spread block-head"><span>${title}</span><button class="quiet" onClick=${look}>${text === null ? "Show" : "Look again"}</button></div>
    ${told}
    ${text !== null && html`<pre tabindex="0" aria-label=${title}>${text || "It does not run now."}</pre>`}
  </div>`;
}

export function Job({ pool, id, given, readOnly }) {
  const path = `api/jobs/${encodeURIComponent(pool)}/${id}`;
  const ask = useCallback(() => get(path), [path]);
  const { answer: job, trouble } = usePolled(ask, REFRESH);
  const [setQuestion, dialog] = useQuestion();
  const [doing, told] = useDoing();
  const [again, setAgain] = useState(null);
  if (!job) return trouble ? html`<${Empty} title="This job cannot be shown"><p>${trouble}</p><p><a href=${`#/jobs/${encodeURIComponent(pool)}`}>All jobs of the pool</a></p><//>` : html`<${Empty} title="Looking…" />`;
  const runs = job.status === "running" || job.status === "queued";
  const cancel = () =>
    setQuestion({
      title: `Cancel job ${job.name}?`,
      text: job.status === "queued" ? "It never runs; its result says so." : "It is stopped as by a timeout; its result says so.",
      verb: "Cancel the job",
      act: () => post(`api/jobs/${encodeURIComponent(pool)}/cancel`, { ids: [job.id] }),
    });
  const retry = () =>
    setQuestion({
      title: `Run job ${job.name} again?`,
      text: "It runs as a new job. The program that added it has had its result, and gets no second one: the outcome is seen here.",
      verb: "Run again",
      mild: true,
      act: async () => {
        const answer = await post(`api/jobs/${encodeURIComponent(pool)}/retry`, { ids: [job.id] });
        setAgain(answer.new[job.id] ?? null);
      },
    });
  const [done, total, text] = job.progress ?? [];
  return html`<section>
    <div class="row spread">
      <h1><a href=${`#/jobs/${encodeURIComponent(pool)}`} class="quiet-text">Jobs of ${pool}</a> / ${job.name} <${Status} row=${job} /></h1>
      ${!readOnly && html`<div class="row">
        ${runs && html`<button class="danger" onClick=${cancel}>Cancel</button>`}
        ${job.retry && html`<button class="primary" onClick=${retry}>Run again</button>`}
      </div>`}
    </div>
    ${told}
    ${trouble && html`<${Notice}>${trouble}<//>`}
    ${again && html`<${Notice} kind="good">It runs again: <a href=${`#/job/${encodeURIComponent(pool)}/${again}`}>the new job</a><//>`}
    ${job.error && html`<${Notice}><strong>${KINDS[job.kind] ?? job.kind}</strong>: ${job.error}<//>`}
    <${States} job=${job} />
    ${job.progress && html`<div class="card block">${total ? html`<${Bar} value=${done / total} label="progress" />` : ""} ${total ? `${done} of ${total}` : done} ${text}</div>`}
    <${Fields} rows=${[
      ["worker", job.worker >= 0 ? job.worker : null],
      ["process", job.pid || null],
      ["takes", taken(job.inside.usage), "memory and processor time of its worker, and of all that this has started"],
      ["attempt", job.attempt ?? job.options?.attempt],
      ["added", moment(job.added), exactly(job.added)],
      ["started", moment(job.started), exactly(job.started)],
      ["ended", moment(job.ended), exactly(job.ended)],
      ["took", seconds(job.seconds)],
      ["priority", job.options?.priority || null],
      ["time limit", job.options?.timeout ? seconds(job.options.timeout) : null],
      ["retries", job.options?.retries || null],
      ["directory", job.inside.directory],
      ["command", job.inside.command && html`<a href=${`#/command/${job.inside.command}`}>its own page</a>`],
    ]} />
    ${job.inside.unseen && html`<p class="quiet-text">${job.inside.unseen}</p>`}
    ${job.status === "done" && !job.started && html`<p class="quiet-text">It ended well. The pool was too quick, or it ended too long ago, for its times to be known here.</p>`}
    ${job.content && html`<${Content} title="The job" rows=${job.content} />`}
    ${job.traceback && html`<${Text} title="Traceback" text=${job.traceback} />`}
    ${job.result && html`<${Content} title="Its result" rows=${job.result} />`}
    <${Written} path=${path} job=${job} />
    ${job.status === "running" && html`<${Stack} path=${`${path}/stack`} wanted=${"stack" in given} title="What it is doing" />`}
    ${dialog}
  </section>`;
}

export function Command({ id, readOnly }) {
  const ask = useCallback(() => get(`api/commands/${id}`), [id]);
  const { answer: job, trouble } = usePolled(ask, 2 * REFRESH);
  const [setQuestion, dialog] = useQuestion();
  const [doing, told] = useDoing();
  if (!job) return trouble ? html`<${Empty} title="This command cannot be shown"><p>${trouble}</p><p><a href="#/commands">All commands</a></p><//>` : html`<${Empty} title="Looking…" />`;
  const order = (name, more = {}) => post(`api/commands/${name}`, { ids: [id], ...more });
  const kill = () => setQuestion({ title: "Kill this command?", text: "It ends at once, with all that it has started.", verb: "Kill", act: () => order("cancel") });
  const drop = () => setQuestion({ title: "Cancel this command?", text: "It waits, and will not be started.", verb: "Cancel the command", act: () => order("cancel") });
  const again = () => doing(() => order("retry"), (answer) => (answer.count ? "started once more: it is the newest of the commands" : answer.wrong.join("; ")));
  const path = `api/commands/${id}`;
  return html`<section>
    <div class="row spread">
      <h1><a href="#/commands" class="quiet-text">Commands</a> / ${job.name || job.id.slice(-20, -12)} <${Status} row=${{ status: job.status, kind: job.state }} /></h1>
      ${!readOnly && html`<div class="row">
        ${job.status === "queued" && html`<button class="danger" onClick=${drop}>Cancel</button>`}
        ${job.status === "running" && html`
          ${job.paused ? html`<button class="primary" onClick=${() => doing(() => order("resume"))}>Resume</button>` : html`<button onClick=${() => doing(() => order("pause"))}>Pause</button>`}
          <button onClick=${() => doing(() => order("signal", { signal: "TERM" }), "it was asked to end")}>Ask to end</button>
          <button class="danger" onClick=${kill}>Kill</button>`}
        ${(job.status === "failed" || job.status === "done") && html`<button class="primary" onClick=${again}>Run again</button>`}
      </div>`}
    </div>
    ${told}
    ${trouble && html`<${Notice}>${trouble}<//>`}
    <div class="card block"><div class="row spread block-head"><span>Command</span><${Copy} text=${job.line} /></div><pre tabindex="0" aria-label="Command">${job.line}</pre></div>
    <${States} job=${{ ...job, added: job.created, seconds: job.elapsed }} />
    <${Fields} rows=${[
      ["state", job.state],
      ["reason", job.reason],
      ["process", job.pid],
      ["directory", job.directory],
      ["runs in", job.cwd],
      ["took", seconds(job.elapsed)],
      ["takes", taken(job.usage), "memory and processor time, with all that it has started"],
      ["user time", job.user_time === null ? null : seconds(job.user_time)],
      ["system time", job.system_time === null ? null : seconds(job.system_time)],
      ["most memory", bytes(job.max_rss)],
      ["id", job.id],
    ]} />
    ${job.status === "running" && html`<${Stack} path=${`${path}/stack`} title="Its processes" />`}
    <${Output} path=${`${path}/output`} stream="stdout" />
    <${Output} path=${`${path}/output`} stream="stderr" />
    ${dialog}
  </section>`;
}

// What is on the disk of a job, also of a program that is gone.
export function JournalJob({ name, id, readOnly }) {
  const source = sourceOf("journal", name);
  const ask = useCallback(() => get(`${source.api}/${id}`), [source.api, id]);
  const { answer: job, trouble } = usePolled(ask, 2 * REFRESH);
  const [setQuestion, dialog] = useQuestion();
  const [again, setAgain] = useState(null);
  if (!job) return trouble ? html`<${Empty} title="This job cannot be shown"><p>${trouble}</p><p><a href=${source.list}>All jobs of the journal</a></p><//>` : html`<${Empty} title="Looking…" />`;
  const retry = () =>
    setQuestion({
      title: `Run job ${job.name} again?`,
      text: `It is added to the journal once more, as a new job. ${job.owner ? `Process ${job.owner} has the journal open, runs it and gets its result.` : "No program has the journal open: the next that does runs it and gets its result."}`,
      verb: "Run again",
      mild: true,
      act: async () => setAgain((await post(`${source.api}/retry`, { ids: [job.id] })).new[job.id] ?? null),
    });
  return html`<section>
    <div class="row spread">
      <h1><a href=${source.list} class="quiet-text">Journal ${name}</a> / ${job.name} <${Status} row=${job} /></h1>
      ${!readOnly && job.retry && html`<button class="primary" onClick=${retry}>Run again</button>`}
    </div>
    ${again && html`<${Notice} kind="good">It was added once more: <a href=${source.one(again)}>the new job</a>.<//>`}
    ${trouble && html`<${Notice}>${trouble}<//>`}
    ${job.status === "interrupted" && html`<${Notice}>It may have run when the program that had the journal open ended: look at what it has left, before it is run again.<//>`}
    ${job.error && job.status !== "interrupted" && html`<${Notice}><strong>${KINDS[job.kind] ?? job.kind}</strong>: ${job.error}<//>`}
    <${States} job=${job} />
    <${Fields} rows=${[
      ["added", moment(job.added), exactly(job.added)],
      ["started", moment(job.started), exactly(job.started)],
      ["ended", moment(job.ended), exactly(job.ended)],
      ["took", seconds(job.seconds)],
      ["attempts", job.attempt || null],
      ["process", job.pid || null],
      ["priority", job.priority || null],
      ["time limit", job.options?.timeout ? seconds(job.options.timeout) : null],
      ["its result", job.ended ? (job.retrieved ? "the program has got it" : "no program has got it yet") : null],
      ["again", job.retry_of ? html`<a href=${source.one(job.retry_of)}>of job ${job.retry_of}</a>` : null],
    ]} />
    ${job.content && html`<${Content} title="The job" rows=${job.content} />`}
    ${job.result && html`<${Content} title="Its result" rows=${job.result} />`}
    ${job.traceback && html`<${Text} title="Traceback" text=${job.traceback} />`}
    ${job.log && html`<${Text} title="What it printed last" text=${job.log} />`}
    ${dialog}
  </section>`;
}
