// Uses the page of devnen's server in Chromium as a person would, and prints what it showed.
//   node devnen_page.mjs URL CHROMIUM UI FOLDER TEXT
//
// UI is the folder of its page; FOLDER holds mine.wav, "  .wav", long.wav and notes.wav (no sound).
import path from "node:path";
import { existsSync, readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { serveBefore } from "./behind.mjs";

const [url, executablePath, ui, folder, TEXT] = process.argv.slice(2);
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

// The paths where server.py serves them: /, /script.js, /styles.css, /vendor/ and /ui/.
function file(name) {
  if (!/^\/($|script\.js$|styles\.css$|vendor\/|ui\/)/.test(name)) return undefined;
  const found = path.join(ui, name === "/" ? "index.html" : name.replace(/^\/ui\//, "/"));
  return existsSync(found) ? [TYPES[path.extname(found)] ?? "text/plain", readFileSync(found)] : undefined;
}

const server = await serveBefore(url, file);
const browser = await chromium.launch({
  executablePath, args: ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"],
});
const page = await browser.newPage({ viewport: { width: 1200, height: 1000 } });
page.setDefaultTimeout(30_000);
const found = { errors: [], answers: {} };
page.on("pageerror", (error) => found.errors.push(String(error)));
page.on("dialog", (dialog) => dialog.accept());
page.on("response", (response) => {
  if (response.request().method() !== "POST") return;
  const name = new URL(response.url()).pathname;
  (found.answers[name] ??= []).push(response.status());
});

const options = (id) => page.$$eval(`#${id} option`, (all) => all.map((each) => each.value));
// Keeps what the page tells: its notices are gone after some seconds.
await page.addInitScript(() => {
  window.notices = [];
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes)
      for (const node of addedNodes)
        if (node.classList?.contains("notification")) window.notices.push(node.querySelector("span").textContent.trim());
  }).observe(document, { childList: true, subtree: true });
});
// Wait for a notice with such words; it is taken away, that the next is not taken for it.
async function noticed(words) {
  const notice = await page.waitForFunction(
    ([source]) => {
      const index = window.notices.findIndex((each) => new RegExp(source).test(each));
      return index < 0 ? "" : window.notices.splice(index, 1)[0];
    },
    [words.source],
  );
  return notice.jsonValue();
}

async function generate(expected) {
  await page.click("#generate-btn");
  const warning = page.locator("#generation-warning-acknowledge");
  if (await warning.isVisible()) {
    await page.check("#hide-generation-warning-checkbox");
    await warning.click();
    await page.waitForSelector("#generation-warning-modal", { state: "hidden" });
  }
  return noticed(expected);
}

// What the player holds: the bytes behind its link, its name and the length that it shows.
async function played() {
  await page.waitForSelector("#play-btn:not([disabled])");
  return page.evaluate(async () => {
    const link = document.getElementById("download-link");
    const audio = new Uint8Array(await (await fetch(link.href)).arrayBuffer());
    return {
      name: link.download,
      audio: btoa(Array.from(audio, (byte) => String.fromCharCode(byte)).join("")),
      shown: document.getElementById("audio-duration").textContent,
      voice: document.getElementById("player-voice-file-details").textContent,
    };
  });
}

async function upload(kind, name, expected) {
  await page.setInputFiles(`#${kind}-file-input`, path.join(folder, name));
  return noticed(expected);
}

try {
  const failed = [];
  page.on("requestfailed", (request) => failed.push(request.url()));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForSelector("#model-status-indicator.success", { state: "attached" });
  found.model = await page.textContent("#model-status-text");
  found.chosen = await page.inputValue("#predefined-voice-select");
  found.voices = await options("predefined-voice-select");
  found.settings = await page.$$eval("#tts-form input[type=range]", (all) => Object.fromEntries(all.map((each) => [each.id, each.value])));

  found.blank = await generate(/enter some text/);
  await page.fill("#text", TEXT);
  found.spoken = {};
  for (const format of ["", "wav", "mp3", "opus"]) {
    if (format) await page.selectOption("#output-format", format);
    await generate(/Audio generated/);
    found.spoken[format || "default"] = await played();
  }

  await page.click('label:has(input[value="clone"])');
  found.unchosen = await generate(/reference audio file/);
  found.uploaded = await upload("clone", "mine.wav", /Successfully uploaded/);
  found.selected = await page.inputValue("#clone-reference-select");
  await page.selectOption("#output-format", "wav");
  await generate(/Audio generated/);
  found.cloned = await played();
  found.nameless = await upload("clone", "  .wav", /Successfully uploaded/);
  found.again = await upload("clone", ".wav", /Successfully uploaded/);
  found.long = await upload("clone", "long.wav", /Upload Error/);
  found.noSound = await upload("clone", "notes.wav", /Upload Error/);
  await page.click("#clone-refresh-button");
  found.refreshed = await noticed(/list refreshed/);
  found.references = await options("clone-reference-select");

  await page.evaluate(() => fetch("/voices/mine", { method: "DELETE" }));
  await page.selectOption("#clone-reference-select", "mine.wav");
  found.gone = await generate(/mine/);

  await page.click('label:has(input[value="predefined"])');
  found.predefined = await upload("predefined-voice", "mine.wav", /Successfully uploaded/);
  await page.click("#predefined-voice-refresh-button");
  await noticed(/list refreshed/);
  found.voicesAfter = await options("predefined-voice-select");

  await page.evaluate(() => document.getElementById("save-gen-defaults-btn").click());
  await page.waitForFunction(() => /nothing was changed/.test(document.getElementById("gen-defaults-status").textContent));
  await page.evaluate(() => document.getElementById("save-config-btn").click());
  await noticed(/Configuration saved/);
  await page.evaluate(() => document.getElementById("restart-server-btn").click());
  await noticed(/restart initiated/);
  const reloaded = page.waitForEvent("load");
  await page.evaluate(() => document.getElementById("reset-settings-btn").click());
  await reloaded;
  found.failed = failed.filter((each) => !each.startsWith("blob:"));
  console.log(JSON.stringify(found));
} finally {
  await browser.close();
  server.close();
}
