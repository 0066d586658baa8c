// Small parts that all pages use.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.module.js";
import { Trouble } from "./api.js";

export { html };

export const Badge = ({ kind, children }) => html`<span class=${`badge badge-${kind}`}>${children}</span>`;

export function Status({ row }) {
  const kind = row.status === "failed" && row.kind === "cancelled" ? "cancelled" : row.status;
  return html`<${Badge} kind=${kind}>${row.status === "failed" && row.kind ? row.kind.replace("_", " ") : row.status}<//>`;
}

export const Empty = ({ title, children }) =>
  html`<div class="empty"><p class="empty-title">${title}</p><div>${children}</div></div>`;

export const Notice = ({ kind = "trouble", children }) => html`<p class=${`notice notice-${kind}`} role="status">${children}</p>`;

export function Bar({ value, label }) {
  const share = Math.max(0, Math.min(1, value || 0));
  return html`<span class="bar" role="img" aria-label=${label}>
    <span class="bar-fill" style=${{ width: `${share * 100}%` }}></span>
  </span>`;
}

// What asks before something is done that cannot be undone: `ask({title, text, verb, act})`, and the dialog to be shown.
// With `field: {label, value, hint}` it asks for a word, too, and with `choice` whether that is wanted: `act` gets both.
export function useQuestion(onClosed = () => {}) {
  const [question, setQuestion] = useState(null);
  const ask = (asked) => setQuestion((before) => ({ ...asked, number: (before?.number ?? 0) + Math.random() }));
  // A question that is being closed may have been followed by the next: each has a dialog of its own.
  const close = (number) => {
    setQuestion((now) => (now?.number === number ? null : now));
    onClosed();
  };
  return [ask, question && html`<${Confirm} key=${question.number} question=${question} onClose=${() => close(question.number)} />`];
}

// What went wrong; of a traceback the first line, and the rest where it is wanted.
export function Failure({ text }) {
  const [first, ...rest] = text.trim().split("\n");
  return html`<${Notice}>${first}${rest.length > 0 && html`<details><summary>All of it</summary><pre tabindex="0" aria-label="All of it">${rest.join("\n")}</pre></details>`}<//>`;
}

function Confirm({ question, onClose }) {
  const box = useRef();
  const [trouble, setTrouble] = useState("");
  const [busy, setBusy] = useState(false);
  const [value, setValue] = useState(question.field?.value ?? "");
  const [chosen, setChosen] = useState(false);
  useEffect(() => box.current.showModal(), []);
  const act = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await question.act(value.trim(), chosen);
      box.current?.close();
    } catch (error) {
      setTrouble(error instanceof Trouble ? error.message : String(error));
    }
    setBusy(false);
  };
  return html`<dialog ref=${box} class="dialog" aria-labelledby="question" onClose=${onClose}>
    <form onSubmit=${act}>
      <h2 id="question">${question.title}</h2>
      <p>${question.text}</p>
      ${question.field && html`<label class="field">${question.field.label}
        <input class="grow" required spellcheck=${false} autocapitalize="off" autocomplete="off" placeholder=${question.field.hint} value=${value} onInput=${(event) => setValue(event.target.value)} />
      </label>`}
      ${question.choice && html`<label><input type="checkbox" checked=${chosen} onChange=${(event) => setChosen(event.target.checked)} /> ${question.choice}</label>`}
      ${busy && html`<p class="quiet-text" role="status">One moment…</p>`}
      ${trouble && html`<${Failure} text=${trouble} />`}
      <div class="row end">
        <button type="button" onClick=${() => box.current.close()}>Keep as it is</button>
        <button type="submit" class=${question.mild ? "primary" : "danger"} disabled=${busy}>${question.verb}</button>
      </div>
    </form>
  </dialog>`;
}

// Something that is done at once; what goes wrong is told beside it.
export function useDoing() {
  const [told, setTold] = useState(null);
  // `elsewhere`: what goes wrong is told by whoever called.
  const doing = async (act, done = "", elsewhere = false) => {
    setTold(null);
    try {
      const answer = await act();
      const text = typeof done === "function" ? done(answer) : done;
      if (text) setTold({ kind: "good", text });
      return answer;
    } catch (error) {
      if (elsewhere) throw error;
      setTold({ kind: "trouble", text: error instanceof Trouble ? error.message : String(error) });
      return undefined;
    }
  };
  useEffect(() => {
    if (told?.kind !== "good") return undefined;
    const timer = setTimeout(() => setTold(null), 6000);
    return () => clearTimeout(timer);
  }, [told]);
  return [doing, told && html`<${Notice} kind=${told.kind}>${told.text}<//>`];
}

// What is asked for again and again while the tab is seen. `ask` must be the same function as long as it asks the same.
export function usePolled(ask, every) {
  const [found, setFound] = useState({ answer: null, trouble: "" });
  useEffect(() => {
    let over = false;
    let timer;
    const look = async () => {
      clearTimeout(timer);
      if (!document.hidden) {
        try {
          const answer = await ask();
          if (!over) setFound({ answer, trouble: "" });
        } catch (error) {
          if (!over) setFound((before) => ({ ...before, trouble: error.message }));
        }
      }
      if (!over) timer = setTimeout(look, every);
    };
    look();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [ask, every]);
  return found;
}

export function Copy({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text); // only on https and loopback
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button class="quiet" onClick=${copy}>${done ? "Copied" : label}</button>`;
}
