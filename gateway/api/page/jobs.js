// Long texts: jobs with their live progress.

import { ask, askJson, events } from "/page/api.js";
import { $, attempt, button, make, say, seconds } from "/page/dom.js";

const BASE = "/v1/audio/jobs";
const OVER = new Set(["completed", "failed", "cancelled"]);
const watched = new Map(); // abort controllers by job

async function load() {
  const { data } = await askJson(`${BASE}?limit=50`);
  $("job-list").replaceChildren(...data.map(row));
  for (const job of data) if (!OVER.has(job.state) && !watched.has(job.id)) watch(job.id);
}

function row(job) {
  const name = job.title ?? job.text_preview ?? `${job.text_characters} characters`;
  const item = make("li", { id: `job-${job.id}` });
  const told = make("span", { className: "grow" }, make("strong", { textContent: name }), ` ${job.state}, ${job.segments_made} of ${job.segments} segments, ${seconds(job.audio_seconds)}`);
  if (!OVER.has(job.state)) told.append(make("progress", { max: 1, value: job.progress, "aria-label": `Progress of ${name}` }));
  if (job.error) told.append(make("br"), make("small", { textContent: job.error }));
  item.append(told);
  const act = (text, action) => item.append(button(text, () => steer(job.id, action), `${text}: ${name}`));
  if (job.state === "pending" || job.state === "processing") act("Pause", "pause");
  if (job.state === "paused") act("Resume", "resume");
  if (!OVER.has(job.state)) act("Cancel", "cancel");
  if (job.state === "failed" || job.state === "cancelled") act("Retry", "retry");
  if (job.state === "completed") item.append(button("Download", () => download(job), `Download: ${name}`));
  item.append(button("Delete", () => remove(job.id), `Delete: ${name}`));
  return item;
}

async function steer(id, action) {
  replace(await askJson(`${BASE}/${id}/${action}`, { method: "POST" }));
  if (action === "retry" || action === "resume") watch(id);
}

async function remove(id) {
  await ask(`${BASE}/${id}`, { method: "DELETE" });
  $(`job-${id}`)?.remove();
}

// With a key, a plain link would not carry it.
async function download(job) {
  const blob = await (await ask(job.download_url)).blob();
  const link = make("a", { href: URL.createObjectURL(blob), download: `${job.title ?? job.id}.${job.response_format}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const replace = (job) => $(`job-${job.id}`)?.replaceWith(row(job));

function watch(id) {
  watched.get(id)?.abort();
  const abort = new AbortController();
  watched.set(id, abort);
  attempt(async () => {
    try {
      const answer = await ask(`${BASE}/${id}/events`, { signal: abort.signal });
      for await (const [name, job] of events(answer)) if (name !== "deleted") replace(job);
    } finally {
      if (watched.get(id) === abort) watched.delete(id);
    }
  });
}

async function submit() {
  const file = $("job-file").files[0];
  const text = $("job-text").value.trim();
  if (!file && !text) return say("Paste a text, or choose a file.");
  const form = new FormData();
  form.set("file", file ?? new Blob([text], { type: "text/plain" }), file?.name ?? "text.txt");
  form.set("input_format", file?.name.toLowerCase().endsWith(".md") ? "markdown" : "text");
  form.set("voice", $("job-voice").value);
  form.set("response_format", $("job-format").value);
  const title = $("job-title").value.trim() || file?.name;
  if (title) form.set("title", title);
  await ask(BASE, { method: "POST", body: form });
  $("job-form").reset();
  await load();
}

export function jobsPanel() {
  $("job-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(submit);
  });
  $("drop").addEventListener("dragover", (event) => event.preventDefault());
  $("drop").addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) $("job-file").files = event.dataTransfer.files;
  });
  return {
    shown: () => attempt(load),
    left: () => watched.forEach((abort) => abort.abort()),
  };
}
