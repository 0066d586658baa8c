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

// A tab has one stream, and none while it is hidden: a browser has six connections to a host, for all tabs together.
export function listen(onNow, onState) {
  let source = null;
  const open = () => {
    if (source || document.hidden) return;
    onState("connecting");
    source = new EventSource(at("events"));
    source.addEventListener("now", (event) => {
      onState("live");
      onNow(JSON.parse(event.data));
    });
    source.onerror = () => {
      onState("lost");
      if (source.readyState === EventSource.CLOSED) {
        close();
        setTimeout(open, 2000);
      }
    };
  };
  const close = () => {
    source?.close();
    source = null;
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
      onState("hidden");
    } else {
      open();
    }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
}
