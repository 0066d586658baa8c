// Tasks: commands under supervisors of their own, that can be written to, signalled and restarted.

import { html, useCallback, useState } from "./vendor/htm-preact.module.js";
import { get, post } from "./api.js";
import { bytes, moment, seconds, share, taken } from "./format.js";
import { Messages, Output } from "./job.js";
import { Empty, Notice, Status, useDoing, usePolled, useQuestion } from "./ui.js";

const SIGNALS = ["TERM", "INT", "HUP", "USR1", "USR2", "KILL"];
const list = () => get("api/tasks");

export function Tasks() {
  const { answer, trouble } = usePolled(list, 1000);
  return html`<section>
    <h1>Tasks</h1>
    ${trouble && html`<${Notice}>${trouble}<//>`}
    ${!answer ? !trouble && html`<${Empty} title="Looking…" />` : !answer.tasks.length
      ? html`<${Empty} title="There are no tasks"><p>A task is a command under a supervisor of its own, which outlives the program that spawned it:</p><pre>bossworker.tasks.spawn(["python3", "worker.py"])</pre><//>`
      : html`<div class="card"><table class="workers tasks">
          <thead><tr><th>Task</th><th>State</th><th class="wide">Command</th><th class="number">Started</th><th class="number">For</th><th class="number">CPU</th><th class="number">Memory</th><th class="number">Process</th></tr></thead>
          <tbody>${answer.tasks.map((task) => html`<tr key=${task.id}>
            <td data-label="Task"><a href=${`#/task/${task.id}`}>${task.name || task.id.slice(-20, -12)}</a></td>
            <td data-label="State"><${Status} row=${{ status: task.paused ? "paused" : task.status, kind: task.state }} /></td>
            <td data-label="Command" class="wide"><span class="clip">${task.line}</span></td>
            <td data-label="Started" class="number">${moment(task.started)}</td>
            <td data-label="For" class="number">${seconds(task.elapsed)}</td>
            <td data-label="CPU" class="number">${task.usage && task.usage.cpu !== null ? share(task.usage.cpu) : "–"}</td>
            <td data-label="Memory" class="number">${bytes(task.usage ? task.usage.memory : task.max_rss)}</td>
            <td data-label="Process" class="number quiet-text">${task.pid ?? "–"}</td>
          </tr>`)}</tbody>
        </table></div>`}
  </section>`;
}

// A text for a stream of the task; it stays in the field until the task has taken it.
function Sender({ path, stream, label, end = "", doing, children }) {
  const [text, setText] = useState("");
  const send = async (event) => {
    event.preventDefault();
    if (await doing(() => post(`${path}/${stream}`, { text: `${text}${end}` }))) setText("");
  };
  return html`<form class="row card block" onSubmit=${send}>
    <input class="grow" value=${text} onInput=${(event) => setText(event.target.value)} placeholder=${label} aria-label=${label} autocomplete="off" />
    <button type="submit">Send</button>${children}
  </form>`;
}

export function Task({ id, readOnly }) {
  const path = `api/tasks/${id}`;
  const ask = useCallback(() => get(path), [path]);
  const { answer: task, trouble } = usePolled(ask, 1000);
  const [setQuestion, dialog] = useQuestion();
  const [signal, setSignal] = useState("TERM");
  const [doing, told] = useDoing();
  if (!task) return trouble ? html`<${Empty} title="This task cannot be shown"><p>${trouble}</p><p><a href="#/tasks">All tasks</a></p><//>` : html`<${Empty} title="Looking…" />`;
  const runs = task.status === "running";
  const kill = () => setQuestion({ title: "Kill this task?", text: "It ends at once, with all that it has started.", verb: "Kill", act: () => post(`${path}/signal`, { signal: "KILL" }) });
  const send = () => (signal === "KILL" ? kill() : doing(() => post(`${path}/signal`, { signal }), `${signal} was sent`));
  const restart = () =>
    setQuestion({ title: "Restart this task?", text: "It is asked to end (TERM), killed five seconds later if it has not, and executed again. Its streams go on where they are.", verb: "Restart", act: () => post(`${path}/restart`, { stop: true }) });
  const close = () => setQuestion({ title: "Close its stdin?", text: "It reads to the end of what was sent, and then finds the end of its input. Nothing more can be sent to this stdin.", verb: "Close", act: () => post(`${path}/close`) });
  const remove = () =>
    setQuestion({ title: "Delete this task?", text: "Its output and all that is known of it are deleted; it is ended if it runs.", verb: "Delete", act: async () => { await post(`${path}/delete`); location.hash = "#/tasks"; } });
  return html`<section>
    <div class="row spread">
      <h1><a href="#/tasks" class="quiet-text">Tasks</a> / ${task.name || task.id.slice(-20, -12)} <${Status} row=${{ status: task.paused ? "paused" : task.status, kind: task.state }} /></h1>
      ${!readOnly && html`<div class="row">
        ${runs
          ? html`${task.paused ? html`<button class="primary" onClick=${() => doing(() => post(`${path}/resume`))}>Resume</button>` : html`<button onClick=${() => doing(() => post(`${path}/pause`))}>Pause</button>`}
              <label class="row tight">Signal <select value=${signal} onChange=${(event) => setSignal(event.target.value)}>${SIGNALS.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
              <button onClick=${send}>Send signal</button>
              <button onClick=${restart}>Restart</button>`
          : html`<button class="primary" onClick=${() => doing(() => post(`${path}/restart`), "it was started again")}>Start again</button>`}
        <button class="danger" onClick=${remove}>Delete</button>
      </div>`}
    </div>
    ${told}
    ${trouble && html`<${Notice}>${trouble}<//>`}
    <div class="card block"><pre tabindex="0" aria-label="Command">${task.line}</pre></div>
    <dl class="fields card">
      <div><dt>state</dt><dd>${task.state}</dd></div>
      <div><dt>process</dt><dd>${task.pid ?? "–"}</dd></div>
      <div><dt>started</dt><dd>${moment(task.started)}</dd></div>
      <div><dt>for</dt><dd>${seconds(task.elapsed)}</dd></div>
      ${task.usage ? html`<div title="memory and processor time, with all that it has started"><dt>takes</dt><dd>${taken(task.usage)}</dd></div>` : html`<div><dt>most memory</dt><dd>${bytes(task.max_rss)}</dd></div>`}
    </dl>
    ${runs && !readOnly && html`<${Sender} path=${path} stream="stdin" end=${"\n"} label="A line for its stdin" doing=${doing}><button type="button" onClick=${close}>Close stdin</button><//>`}
    <${Output} path=${`${path}/output`} stream="stdout" />
    <${Output} path=${`${path}/output`} stream="stderr" />
    ${task.messages > 0 && html`<${Messages} path=${`${path}/messages`} />`}
    ${runs && !readOnly && html`<details class="more"><summary>Send it a message, which it reads from its stream data</summary><${Sender} path=${path} stream="data" label="A message for its data" doing=${doing} /></details>`}
    ${dialog}
  </section>`;
}
