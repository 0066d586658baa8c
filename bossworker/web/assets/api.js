// Requests to the page's own server, and the one stream that comes from it.

const at = (path) => new URL(path, document.baseURI).href;

export class Trouble extends Error {}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(at(path), { credentials: "same-origin", ...options });
  } catch {
    throw new Trouble("the page's server does not answer: is it still running?");
  }
  const told = await answer.text();
  if (!answer.ok) {
    let why = told;
    try {
      why = JSON.parse(told).error ?? told;
    } catch {
      // it was plain text
    }
    throw new Trouble(why || `the server answered ${answer.status}`);
  }
  return JSON.parse(told);
}

export function get(path, given = {}) {
  const wanted = Object.entries(given).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(wanted).toString();
  return ask(query ? `${path}?${query}` : path);
}

export function post(path, told = {}) {
  return ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(told) });
}

export const link = (path) => at(path);

// What comes by itself. A browser keeps six connections to a host, for all its tabs together: so there is one stream,
// held by one of the tabs that are seen, which tells the others; and none while no tab is seen.
const HELD = "bossworker-stream";

export function listen(onNow, onState) {
  const others = "BroadcastChannel" in window ? new BroadcastChannel(HELD) : null;
  const mayShare = Boolean(others && navigator.locks);
  let letGo = null; // ends our turn, or our waiting for it
  let seenAt = 0;
  const take = (text) => {
    if (document.hidden) return;
    seenAt = Date.now();
    onState("live");
    onNow(JSON.parse(text));
  };
  others?.addEventListener("message", (event) => take(event.data));

  const hold = (over) =>
    new Promise((done) => {
      let source;
      const open = () => {
        source = new EventSource(at("events"));
        source.addEventListener("now", (event) => {
          take(event.data);
          if (mayShare) others.postMessage(event.data);
        });
        source.onerror = () => {
          if (source.readyState === EventSource.CLOSED && !over.aborted) setTimeout(() => over.aborted || open(), 2000);
        };
      };
      open();
      over.addEventListener("abort", () => {
        source.close();
        done();
      });
    });
  const begin = () => {
    if (letGo || document.hidden) return;
    onState("connecting");
    letGo = new AbortController();
    const over = letGo.signal;
    if (mayShare) navigator.locks.request(HELD, { signal: over }, () => hold(over)).catch(() => {});
    else hold(over);
  };
  const end = () => {
    letGo?.abort();
    letGo = null;
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      end();
      onState("hidden");
    } else {
      begin();
    }
  });
  setInterval(() => {
    if (!document.hidden && seenAt && Date.now() - seenAt > 3000) onState("lost");
  }, 1000);
  addEventListener("pagehide", end);
  addEventListener("pageshow", begin);
  begin();
}
