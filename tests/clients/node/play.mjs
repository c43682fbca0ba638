// Plays every format in Chromium from the streaming endpoint, to its end; prints what came of it.
//   node play.mjs BASE_URL CHROMIUM
//
// A page that this script serves plays from `/play/FORMAT`, which passes the gateway's stream on
// as it comes (an <audio> element can only GET).
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { mkdtempSync, rmSync } from "node:fs";
import { Readable } from "node:stream";
import { chromium } from "playwright-core";

const [baseURL, executablePath] = process.argv.slice(2);
const TEXT = "It was a bright cold day in April, and the clocks were striking one.";

const server = http.createServer(async (request, response) => {
  const format = request.url.match(/^\/play\/(\w+)$/)?.[1];
  if (!format) {
    response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>play</title>");
    return;
  }
  const answer = await fetch(`${baseURL}/audio/speech`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ input: TEXT, response_format: format }),
  });
  response.writeHead(answer.status, { "Content-Type": answer.headers.get("content-type") });
  Readable.fromWeb(answer.body).pipe(response);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;

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
  for (const format of ["mp3", "opus", "aac", "flac", "wav"]) {
    found[format] = await page.evaluate((source) => new Promise((resolve) => {
      const audio = new Audio();
      audio.playbackRate = 4;
      audio.onended = () => resolve({ ended: true, seconds: audio.currentTime });
      audio.onerror = () => resolve({ ended: false, error: audio.error.message });
      audio.src = source;
      audio.play().catch((error) => resolve({ ended: false, error: String(error) }));
    }), `${origin}/play/${format}`);
  }
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
  server.close();
}
console.log(JSON.stringify(found));
