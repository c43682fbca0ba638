// Plays every format in Chromium from the streaming endpoint, to its end; prints what came of it.
//   node play.mjs BASE_URL CHROMIUM TEXT
//
// An <audio> element can only GET: the page plays from `/play/FORMAT`, where this script passes the
// gateway's stream on as it comes. The page also asks the gateway itself, from another origin, and
// decodes the whole answer, which tells the exact length.
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { mkdtempSync, rmSync } from "node:fs";
import { Readable } from "node:stream";
import { finished } from "node:stream/promises";
import { chromium } from "playwright-core";

const [baseURL, executablePath, TEXT] = process.argv.slice(2);
const FORMATS = ["mp3", "opus", "aac", "flac", "wav"];
const PLAY_MILLISECONDS = 60_000;

const passedOn = {}; // when the last byte of each format had come, Date.now()

async function passOn(format, response) {
  const answer = await fetch(`${baseURL}/audio/speech`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: "tts-1", input: TEXT, response_format: format }),
  });
  response.writeHead(answer.status, { "Content-Type": answer.headers.get("content-type") });
  const body = Readable.fromWeb(answer.body);
  body.pipe(response);
  await finished(body);
  passedOn[format] = Date.now();
}

const server = http.createServer((request, response) => {
  const format = request.url.match(/^\/play\/(\w+)$/)?.[1];
  if (!format) {
    response.writeHead(200, { "Content-Type": "text/html" });
    response.end("<!doctype html><title>play</title>");
    return;
  }
  passOn(format, response).catch((error) => response.destroy(error));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;

function play([source, milliseconds]) {
  return new Promise((resolve) => {
    const audio = new Audio(source);
    let began = null;
    audio.onplaying = () => { began ??= Date.now(); };
    audio.onended = () => resolve({ ended: true, seconds: audio.currentTime, began });
    audio.onerror = () => resolve({ ended: false, error: audio.error.message });
    setTimeout(() => resolve({ ended: false, error: `at ${audio.currentTime} s` }), milliseconds);
    audio.play().catch((error) => resolve({ ended: false, error: String(error) }));
  });
}

async function decode([url, input, response_format]) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model: "tts-1", input, response_format }),
  });
  const context = new OfflineAudioContext(1, 1, 24000);
  return (await context.decodeAudioData(await answer.arrayBuffer())).duration;
}

const profile = mkdtempSync(path.join(os.tmpdir(), "play-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
  ],
});
const found = {};
try {
  const page = await context.newPage();
  await page.goto(origin);
  await Promise.all(FORMATS.map(async (format) => {
    const source = `${origin}/play/${format}`;
    const [played, decoded_seconds] = await Promise.all([
      page.evaluate(play, [source, PLAY_MILLISECONDS]),
      page.evaluate(decode, [`${baseURL}/audio/speech`, TEXT, format]),
    ]);
    const lead_seconds = (passedOn[format] - played.began) / 1000;
    found[format] = { ...played, lead_seconds, decoded_seconds };
  }));
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
  server.close();
}
console.log(JSON.stringify(found));
