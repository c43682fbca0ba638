// Uses the gateway's page in Chromium as a person would, and prints what came of it as JSON.
//   node page.mjs URL CHROMIUM FOLDER [KEY]
//
// FOLDER holds voice.wav, and receives screenshots. With KEY, only what keys change is looked at.
import path from "node:path";
import { createRequire } from "node:module";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import { chromium } from "playwright-core";

const [url, executablePath, folder, apiKey] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PANELS = ["speak", "dialogue", "voices", "jobs", "status"];
const HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
const LONG = Array.from({ length: 300 }, (_, n) => `This is sentence number ${n} of a text that takes a while.`).join(" ");

const profile = mkdtempSync(path.join(os.tmpdir(), "page-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
  ],
  permissions: ["clipboard-read", "clipboard-write", "microphone"],
  viewport: { width: 1100, height: 900 },
  bypassCSP: false,
});
context.setDefaultTimeout(60_000);
const found = { hosts: [], errors: [], bytes: 0 };
const page = context.pages()[0];
page.on("request", (request) => { if (request.url().startsWith("http")) found.hosts.push(new URL(request.url()).host); });
page.on("response", async (response) => {
  if (/\/(page\/.*)?$/.test(new URL(response.url()).pathname)) found.bytes += (await response.body().catch(() => "")).length;
});
page.on("pageerror", (error) => found.errors.push(String(error)));
page.on("console", (message) => { if (message.type() === "error" && /Content Security|Uncaught/.test(message.text())) found.errors.push(message.text()); });
page.on("dialog", (dialog) => dialog.accept());

const open = async (name) => { await page.click(`#tab-${name}`); await page.waitForSelector(`#${name}:not([hidden])`); };
const stateIs = (...states) => page.waitForFunction((all) => all.includes(document.getElementById("state").textContent), states);
const said = () => page.textContent("#message");
const running = async () => (await (await fetch(`${url}/health`)).json()).upstreams.reduce((sum, each) => sum + each.in_flight, 0);

async function until(condition) {
  for (let i = 0; i < 600; i += 1) {
    if (await condition()) return true;
    await new Promise((done) => setTimeout(done, 100));
  }
  return false;
}

async function speak(text, format) {
  await page.fill("#text", text);
  await page.selectOption("#format", format);
  await page.click("#speak-button");
}

const scenarios = {
  async loaded() {
    const paint = await page.evaluate(() => performance.getEntriesByType("paint").find((each) => each.name === "first-contentful-paint")?.startTime);
    return { paint, voices: await page.locator("#voice option").count() };
  },
  async spoken() {
    const figures = {};
    for (const format of ["wav", "mp3", "opus"]) {
      await speak("One short sentence.", format);
      await page.waitForSelector("#result:not([hidden])");
      await page.waitForFunction(() => document.getElementById("duration").textContent !== "–");
      figures[format] = {
        duration: parseFloat(await page.textContent("#duration")),
        firstAudio: parseFloat(await page.textContent("#first-audio")),
        file: await page.getAttribute("#download", "download"),
      };
    }
    const painted = await page.evaluate(() => {
      const canvas = document.getElementById("wave");
      return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
    });
    return { figures, painted };
  },
  async streamedAndStopped() {
    await speak(LONG, "wav");
    await stateIs("playing");
    const before = { running: await running(), result: await page.isVisible("#result") };
    await page.keyboard.press("Escape");
    await stateIs("stopped");
    return { before, free: await until(async () => (await running()) === 0) };
  },
  async highlighted() {
    await page.fill("#text", "[SPEAKER0] Hello. [laugh] [nothing]");
    return page.locator("#marks mark").allTextContents();
  },
  async copied() {
    const texts = {};
    await page.fill("#text", "It's \"quoted\".");
    for (const kind of ["curl", "python", "javascript"]) {
      await page.selectOption("#snippet-kind", kind);
      await page.click("#copy");
      texts[kind] = await page.evaluate(() => navigator.clipboard.readText());
    }
    return texts;
  },
  async dialogue() {
    await open("dialogue");
    const speakers = await page.locator("#speakers select").count();
    const asked = page.waitForRequest((request) => request.url().endsWith("/v1/audio/speech"));
    await page.click("#speak-dialogue");
    const body = (await asked).postDataJSON();
    await stateIs("complete");
    await open("speak");
    return { speakers, body };
  },
  async voiceUploadedAndUsed() {
    await open("voices");
    await page.fill("#voice-name", "page-voice");
    await page.setInputFiles("#voice-file", path.join(folder, "voice.wav"));
    await page.fill("#voice-text", HOSTILE);
    await page.click("#voice-form button.main");
    await page.waitForFunction(() => document.getElementById("recorded").textContent === "Added.");
    await page.waitForSelector('button[aria-label="Speak with page-voice"]');
    const listed = await page.textContent("#voice-list");
    const answer = page.waitForResponse((response) => response.url().endsWith("/v1/audio/speech"));
    await page.click('button[aria-label="Speak with page-voice"]');
    const status = (await answer).status();
    await page.click('button[aria-label="Listen to the recording of page-voice"]');
    await page.waitForSelector("#voice-audio:not([hidden])");
    await page.click('button[aria-label="Make page-voice the default"]');
    await page.waitForFunction(() => document.getElementById("voice-list").textContent.includes("default"));
    await page.click('button[aria-label="Delete page-voice"]');
    await page.waitForFunction(() => !document.getElementById("voice-list").textContent.includes("page-voice"));
    return { status, hostile: listed.includes("<img") };
  },
  async voiceRecorded() {
    await page.click("#record");
    await page.waitForTimeout(4000); // a recording has a length
    await page.click("#record");
    await page.waitForFunction(() => document.getElementById("recorded").textContent.startsWith("Recorded"));
    await page.fill("#voice-name", "recorded");
    await page.click("#voice-form button.main");
    await page.waitForFunction(() => document.getElementById("recorded").textContent === "Added." || !document.getElementById("message").hidden);
    const message = await said();
    if (!message) await page.click('button[aria-label="Delete recorded"]');
    return message;
  },
  async job() {
    await open("jobs");
    await page.fill("#job-text", `Chapter 1\n\n${LONG.slice(0, 3000)}`);
    await page.fill("#job-title", HOSTILE);
    await page.click("#job-form button.main");
    await page.waitForFunction(() => document.getElementById("job-list").textContent.includes("completed"));
    const title = await page.textContent("#job-list strong");
    const waiting = page.waitForEvent("download");
    await page.locator("#job-list button", { hasText: "Download" }).first().click();
    const download = await waiting;
    const file = await download.path();
    const bytes = readFileSync(file).length;
    await page.locator("#job-list button", { hasText: "Delete" }).first().click();
    await page.waitForFunction(() => !document.getElementById("job-list").children.length);
    return { title, bytes };
  },
  async status() {
    await open("status");
    await page.waitForSelector("#status-figures dd");
    return { figures: await page.locator("#status-figures dt").allTextContents(), charts: await page.locator("#charts canvas").count() };
  },
  async hostile() {
    await open("speak");
    await speak(HOSTILE, "wav");
    await page.waitForFunction(() => document.getElementById("history").textContent.includes("<img"));
    await stateIs("complete", "failed", "idle");
    await page.reload();
    await page.waitForFunction(() => document.getElementById("history").textContent.includes("<img"));
    return page.evaluate(() => ({ hacked: window.hacked ?? null, images: document.images.length, scripts: document.scripts.length }));
  },
  async accessible() {
    const serious = [];
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme });
      for (const name of PANELS) {
        await open(name);
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => axe.run());
        serious.push(...violations.filter((each) => ["serious", "critical"].includes(each.impact)).map((each) => `${scheme} ${name}: ${each.id} ${each.nodes[0].html.slice(0, 120)}`));
      }
    }
    return serious;
  },
  async narrow() {
    const wide = [];
    for (const [scheme, width, height, file] of [["light", 360, 780, "phone"], ["light", 1100, 900, "desktop"], ["dark", 1100, 900, "dark"]]) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize({ width, height });
      for (const name of PANELS) {
        await open(name);
        const across = await page.evaluate(() => document.documentElement.scrollWidth);
        if (across > width) wide.push(`${name} is ${across} wide at ${width}`);
      }
      await open("speak");
      await page.click("#clear");
      await speak("[SPEAKER0] Did you hear that? [laugh] [SPEAKER1] I did, and I liked it.", "wav");
      await page.waitForSelector("#result:not([hidden])");
      await page.screenshot({ path: path.join(folder, `page-${file}.png`) });
    }
    return wide;
  },
};

const keyed = {
  async withoutKey() {
    await page.waitForFunction(() => !document.getElementById("message").hidden);
    return said();
  },
  async withKey() {
    await page.fill("#key", apiKey);
    await page.click("#key-form button");
    await page.waitForFunction(() => document.querySelectorAll("#voice option").length > 0);
    await speak("With a key.", "wav");
    await page.waitForSelector("#result:not([hidden])");
    return page.evaluate((secret) => ({
      session: Object.values(sessionStorage).includes(secret),
      local: Object.values(localStorage).some((value) => value.includes(secret)),
      cookies: document.cookie,
    }), apiKey);
  },
};

try {
  await page.goto(url, { waitUntil: "load" });
  if (!apiKey) await page.waitForFunction(() => document.querySelectorAll("#voice option").length > 0);
  for (const [name, run] of Object.entries(apiKey ? keyed : scenarios)) {
    try {
      found[name] = await run();
    } catch (error) {
      found[name] = { failed: String(error), said: await said().catch(() => null) };
    }
  }
  found.hosts = [...new Set(found.hosts)];
  console.log(JSON.stringify(found));
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
