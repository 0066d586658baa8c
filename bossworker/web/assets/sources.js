// Where jobs are listed from: a pool, a journal, or the commands with job directories.

const enc = encodeURIComponent;

const POOL = {
  what: "job",
  tabs: ["", "queued", "running", "done", "failed"],
  kinds: true,
  times: true,
  again: "Each runs once more, as a new job. The program that added it has had its result, and gets no second one: the outcome is seen here.",
  stop: "Queued ones never run, running ones are stopped as by a timeout. Each has a result that says so.",
  canCancel: true,
  none: ["No job has been added yet", "pool.add_work(job), pool.map(jobs) or pool.submit(job) add some."],
};

const COMMANDS = {
  key: "",
  what: "command",
  tabs: ["", "queued", "running", "done", "failed"],
  again: "Each is started once more, as a new one.",
  stop: "Those that wait are not started; those that run are killed, with all that they have started.",
  canCancel: true,
  none: ["No command has been run yet", "bossworker start -- make -j8 starts one; so do bossworker.jobs.start, and run_command in a pool."],
  api: "api/commands",
  list: "#/commands",
  one: (id) => `#/command/${id}`,
};

const JOURNAL = {
  what: "job",
  tabs: ["", "queued", "running", "done", "failed", "cancelled", "interrupted"],
  kinds: true,
  times: true,
  again: "Each is added to the journal once more, as a new job: the program that has it open runs it and gets its result, or else the next that opens it.",
  canForget: true,
  none: ["No job is in this journal", "BossWorker(handler, journal=…) writes each there that is added; those that were forgotten are gone."],
};

// `kind`: "pool", "journal" or "commands".
export function sourceOf(kind, key = "") {
  if (kind === "commands") return { kind, ...COMMANDS };
  if (kind === "journal") return { kind, key, ...JOURNAL, api: `api/journals/${enc(key)}`, list: `#/journal/${enc(key)}`, one: (id) => `#/journal/${enc(key)}/${id}` };
  return { kind: "pool", key, ...POOL, api: `api/jobs/${enc(key)}`, list: `#/jobs/${enc(key)}`, one: (id) => `#/job/${enc(key)}/${id}` };
}
