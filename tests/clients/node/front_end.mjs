// Runs the services and the streaming hook of travisvn's front end in Chromium, from its sources;
// prints what they found.
//   node front_end.mjs BASE_URL CHROMIUM FOLDER TEXT LONG_TEXT
//
// FOLDER holds its checkout and, in node_modules, esbuild and what the sources import.
import path from "node:path";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { serveBefore } from "./behind.mjs";

const [baseURL, executablePath, folder, TEXT, LONG_TEXT] = process.argv.slice(2);
const esbuild = createRequire(path.join(folder, "package.json"))("esbuild");

const entry = `
import { createElement } from "react";
import { createRoot } from "react-dom/client";
import { useStreamingTTS } from "./hooks/useStreamingTTS";
import { createTTSService } from "./services/tts";
import { createLongTextTTSService } from "./services/longTextTTS";
window.services = (url) => ({ tts: createTTSService(url, "s1"), long: createLongTextTTSService(url, "s1") });
function Page({ url }) { window.hook = useStreamingTTS({ apiBaseUrl: url }); return null; }
window.mount = (url) => createRoot(document.body).render(createElement(Page, { url }));
`;
const bundle = await esbuild.build({
  stdin: { contents: entry, resolveDir: path.join(folder, "checkout/frontend/src"), loader: "tsx" },
  bundle: true, write: false, format: "iife", nodePaths: [path.join(folder, "node_modules")],
  define: { "process.env.NODE_ENV": '"production"' }, logLevel: "error",
});

// As its nginx.conf does: what is no file of its own goes on to the server, the port off the Host.
const FILES = {
  "/": ["text/html",
    "<!doctype html><title>front end</title><body></body><script src=/script.js></script>"],
  "/script.js": ["text/javascript", bundle.outputFiles[0].text],
};
const server = await serveBefore(baseURL, (name) => FILES[name], "127.0.0.1");

async function streaming([url, input]) {
  window.mount(url);
  const until = async (fact) => { while (!fact()) await new Promise((r) => setTimeout(r, 20)); };
  await until(() => window.hook);
  await window.hook.startStreaming({ input, voice: "alloy", exaggeration: 0.5 });
  await until(() => !window.hook.isStreaming && (window.hook.audioUrl || window.hook.error));
  const { error, audioUrl, audioInfo, progress } = window.hook;
  const wav = audioUrl ? await (await fetch(audioUrl)).arrayBuffer() : new ArrayBuffer(0);
  return { error, audioInfo, bytes: wav.byteLength, chunks: progress?.chunksReceived };
}

async function speaking([url, input]) {
  const { tts } = window.services(url);
  const found = { health: await tts.getHealth(), ping: await tts.ping() };
  const plain = await tts.generateSpeech({ input });
  const file = new File([plain], "me (1).wav", { type: "audio/wav" });
  found.plain = plain.size;
  found.json = (await tts.generateSpeechJSON({ input })).size;
  found.cloned = (await tts.generateSpeech({ input, voice_file: file, temperature: 0.8 })).size;
  for await (const { progress } of tts.generateSpeechStream({ input, streaming_strategy: "word" }))
    found.streamed = progress.totalBytes;
  await tts.uploadVoice("my voice", file, "en");
  found.info = await tts.getVoiceInfo("my voice");
  await tts.addAlias("my voice", "me");
  found.aliases = (await tts.listAliases("my voice")).aliases;
  found.names = (await tts.getAllVoiceNames()).voice_names;
  await tts.setDefaultVoice("my voice");
  found.default = (await tts.getDefaultVoice()).default_voice;
  await tts.clearDefaultVoice();
  await tts.removeAlias("my voice", "me");
  await tts.renameVoice("my voice", "mine");
  found.voices = (await tts.getVoices()).voices.map((voice) => voice.name);
  found.downloaded = (await tts.downloadVoice("mine")).size;
  await tts.deleteVoice("mine");
  found.left = (await tts.getVoices()).count;
  found.twice = await tts.deleteVoice("mine").catch((error) => error.message);
  found.languages = (await tts.getSupportedLanguages()).count;
  found.status = await tts.getStatus({ includeMemory: true, includeHistory: true, historyLimit: 5 });
  found.progress = (await tts.getProgress()).is_processing;
  found.statistics = (await tts.getStatistics(true)).total_requests;
  for (const name of ["getMemoryInfo", "clearMemory", "getApiInfo", "getMemoryConfig",
    "getMemoryRecommendations"]) await tts[name]();
  await tts.updateMemoryConfig({ cpu_memory_percent: 80 });
  return found;
}

async function longTexts([url, text]) {
  const { long } = window.services(url);
  const job = await long.submitJob({ text, voice: "alloy", output_format: "wav" });
  const events = [];
  await new Promise((resolve, reject) => {
    const close = long.subscribeToSSE(job.job_id, (event) => {
      events.push(event.event_type);
      if (event.event_type !== "progress") { close(); resolve(); }
    }, reject);
  });
  const found = { events, chunks: job.total_chunks, status: (await long.getJobStatus(job.job_id)).status };
  found.bytes = (await long.downloadJobAudio(job.job_id)).size;
  found.details = (await long.getJobDetails(job.job_id)).metadata.job_id === job.job_id;
  await long.updateJob(job.job_id, { display_name: "A name", tags: ["one"] });
  await long.archiveJob(job.job_id);
  found.archived = (await long.listHistoryJobs({ filters: { is_archived: true }, sort: "created_desc", limit: 5 })).total_count;
  await long.unarchiveJob(job.job_id);
  found.found = (await long.searchJobs("clocks", { limit: 5 })).total_count;
  found.listed = (await long.listJobs({ limit: 5 })).jobs.map((each) => each.display_name);
  found.jobs = (await long.getHistoryStats()).total_jobs;
  const again = await long.retryJob(job.job_id, {});
  found.paused = (await long.pauseJob(again.job_id)).status;
  found.resumed = (await long.resumeJob(again.job_id)).status;
  found.cancelled = await long.cancelJob(again.job_id);
  found.deleted = (await long.bulkAction({ job_ids: [job.job_id, again.job_id], action: "delete", confirm: true })).success_count;
  return found;
}

const browser = await chromium.launch({
  executablePath, args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
});
try {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => { if (message.type() === "error") errors.push(message.text()); });
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const hook = await page.evaluate(streaming, ["/v1", TEXT]);
  const services = await page.evaluate(speaking, ["/v1", TEXT]);
  const long = await page.evaluate(longTexts, ["/v1", LONG_TEXT]);
  console.log(JSON.stringify({ hook, services, long, errors }));
} finally {
  await browser.close();
  server.close();
}
