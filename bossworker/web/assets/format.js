// Numbers and times as people read them. All of them are text.

const grouped = new Intl.NumberFormat("en");

export const count = (value) => (value === null || value === undefined ? "–" : grouped.format(value));

export function rate(value) {
  if (!value) return "0";
  if (value >= 1000) return grouped.format(Math.round(value));
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${(value * 1000).toFixed(value < 0.01 ? 2 : value < 0.1 ? 1 : 0)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  const whole = Math.floor(value);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

export function bytes(value) {
  if (!value) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${value.toFixed(at && value < 100 ? 1 : 0)} ${units[at]}`;
}

export const share = (value) => `${Math.round(value * 100)} %`;

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { month: "short", day: "numeric" });

export function moment(value) {
  if (!value) return "–";
  const when = new Date(value * 1000);
  const text = clock.format(when);
  return when.toDateString() === new Date().toDateString() ? text : `${day.format(when)} ${text}`;
}

export function exactly(value) {
  return value ? new Date(value * 1000).toISOString().replace("T", " ").replace("Z", " UTC") : "";
}

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

// Memory and processor time, of what the server tells of a process and all that it has started.
export const taken = (usage) => (usage ? `${bytes(usage.memory)}${usage.cpu === null ? "" : `, ${share(usage.cpu)} of a processor`}${usage.processes > 1 ? `, ${plural(usage.processes, "process", "processes")}` : ""}` : null);

export const KINDS = {
  exception: "raised an exception",
  timeout: "time was up",
  crash: "worker died",
  cancelled: "cancelled",
  bad_result: "no proper result",
  bad_job: "could not be read",
  memory: "too much memory",
  reported: "reported an error",
  interrupted: "interrupted",
};
