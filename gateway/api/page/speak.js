// One text, spoken while it comes: heard, drawn, measured, kept.

import { ask, key } from "/page/api.js";
import { $, attempt, button, make, options, seconds } from "/page/dom.js";
import { Waveform, playerOf } from "/page/player.js";

const HISTORY = "speech-gateway-history";
const MOST_KEPT = 20;
const TOKENS = /\[SPEAKER\d+\]|\[(?:laugh|cough|applause|cheering|(?:humming|music|sing) (?:start|end))\]/g;
// The characteristics that the model's official examples use.
const SCENES = {
  "": "As it is",
  "Happy, energetic and expressive, with a smile in the voice, at a moderate pace.": "Happy",
  "Dramatic and expressive, low pitch, slow pace, with long pauses.": "Dramatic",
  "Whispered, hushed and breathy, very close to the microphone, slow pace.": "Whisper",
  "Calm, soft, articulate, moderate pace, low pitch.": "Calm",
  "Loud and energetic, fast pace, high pitch.": "Excited",
  "Monotone, articulate, moderate pace.": "Announcer",
  "Trembling, hushed, vocal fry.": "Afraid",
  "Mature, masculine, british accent.": "British man",
  "Young adult, feminine, american accent.": "American woman",
};

let running = null; // the abort controller of the request that runs
let wave;

export function stop() {
  running?.abort(); // closing the connection ends the generation on the engine, too
}

// Sends a request, plays the answer while it comes, and keeps it for the page's own player.
export async function speak(body) {
  stop();
  const abort = (running = new AbortController());
  const started = performance.now();
  const chunks = [];
  let player;
  $("result").hidden = true;
  for (const id of ["first-audio", "duration", "factor"]) $(id).textContent = "–";
  $("state").textContent = "waiting";
  $("stop").disabled = false;
  wave.clear();
  try {
    const answer = await ask("/v1/audio/speech", { method: "POST", json: body, signal: abort.signal });
    const type = answer.headers.get("content-type");
    player = playerOf(body.response_format, $("audio"), wave);
    abort.signal.addEventListener("abort", () => player.stop());
    const reader = answer.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      if (!chunks.length) {
        $("first-audio").textContent = `${Math.round(performance.now() - started)} ms`;
        $("state").textContent = "playing";
      }
      chunks.push(value);
      player.feed(value);
    }
    const took = (performance.now() - started) / 1000;
    const blob = body.response_format === "pcm" ? withHeader(chunks, "pcm") : withHeader(chunks, body.response_format, type);
    $("state").textContent = "complete";
    await player.end();
    await keep(blob, body.response_format, took);
  } catch (error) {
    player?.stop();
    $("state").textContent = error.name === "AbortError" ? "stopped" : "failed";
    throw error;
  } finally {
    if (running === abort) {
      running = null;
      $("stop").disabled = true;
    }
  }
}

// A stream's WAV header tells no size, and PCM has none: players want one.
function withHeader(chunks, format, type) {
  if (format !== "wav" && format !== "pcm") return new Blob(chunks, { type });
  const size = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  if (format === "wav") {
    const first = chunks[0].slice();
    const view = new DataView(first.buffer);
    view.setUint32(4, size - 8, true);
    view.setUint32(40, size - 44, true);
    return new Blob([first, ...chunks.slice(1)], { type: "audio/wav" });
  }
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF"); header.setUint32(4, size + 36, true); text(8, "WAVEfmt ");
  header.setUint32(16, 16, true); header.setUint16(20, 1, true); header.setUint16(22, 1, true);
  header.setUint32(24, 24000, true); header.setUint32(28, 48000, true);
  header.setUint16(32, 2, true); header.setUint16(34, 16, true);
  text(36, "data"); header.setUint32(40, size, true);
  return new Blob([header, ...chunks], { type: "audio/wav" });
}

async function keep(blob, format, took) {
  const url = URL.createObjectURL(blob);
  $("audio").src = url;
  $("download").href = url;
  $("download").download = `speech.${format === "pcm" ? "wav" : format}`;
  $("result").hidden = false;
  const duration = await wave.decode(blob).catch(() => null);
  if (duration === null) return;
  $("duration").textContent = seconds(duration);
  $("factor").textContent = (took / duration).toFixed(2);
  if (format === "opus" || format === "aac" || format === "flac") $("audio").play().catch(() => {});
}

function number(id) {
  return $(id).value === "" ? undefined : Number($(id).value);
}

// The form as a request; what was left empty is not sent.
export function requestOf(text, changes = {}) {
  const scene = $("instructions").value.trim() || $("scene").value;
  const body = {
    model: "tts-1",
    input: text,
    voice: $("voice").value,
    response_format: $("format").value,
    speed: Number($("speed").value) === 1 ? undefined : Number($("speed").value),
    instructions: scene || undefined,
    temperature: number("temperature"),
    top_p: number("top-p"),
    top_k: number("top-k"),
    seed: number("seed"),
    ...changes,
  };
  return JSON.parse(JSON.stringify(body));
}

function highlight() {
  const text = $("text").value;
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(TOKENS)) {
    parts.push(text.slice(end, match.index), make("mark", { textContent: match[0] }));
    end = match.index + match[0].length;
  }
  $("marks").replaceChildren(...parts, text.slice(end), "\n");
  $("marks").scrollTop = $("text").scrollTop;
}

function snippet(kind, body) {
  const url = location.origin;
  const secret = key.get() ? "YOUR_API_KEY" : "unused";
  const { model, input, voice, response_format: format, speed, instructions, ...extra } = body;
  const json = JSON.stringify(body, null, 2);
  if (kind === "curl") {
    const bearer = key.get() ? ` \\\n  -H 'Authorization: Bearer ${secret}'` : "";
    return `curl ${url}/v1/audio/speech${bearer} \\\n  -H 'Content-Type: application/json' \\\n  -d '${json.replaceAll("'", "'\\''")}' \\\n  -o speech.${format}\n`;
  }
  const named = JSON.parse(JSON.stringify({ model, voice, input, response_format: format, speed, instructions }));
  if (kind === "python") {
    const literal = (value) => JSON.stringify(value);
    const lines = Object.entries(named).map(([name, value]) => `    ${name}=${literal(value)},`);
    if (Object.keys(extra).length) lines.push(`    extra_body=${literal(extra)},`);
    return `from openai import OpenAI\n\nclient = OpenAI(base_url="${url}/v1", api_key="${secret}")\nwith client.audio.speech.with_streaming_response.create(\n${lines.join("\n")}\n) as answer:\n    answer.stream_to_file("speech.${format}")\n`;
  }
  return `import { writeFile } from "node:fs/promises";\nimport OpenAI from "openai";\n\nconst client = new OpenAI({ baseURL: "${url}/v1", apiKey: "${secret}" });\nconst answer = await client.audio.speech.create(${JSON.stringify({ ...named, ...extra }, null, 2)});\nawait writeFile("speech.${format}", Buffer.from(await answer.arrayBuffer()));\n`;
}

const kept = () => JSON.parse(localStorage.getItem(HISTORY) ?? "[]");

function showHistory() {
  $("history").replaceChildren(
    ...kept().map((body) =>
      make("li", {}, make("span", { className: "grow", textContent: `${body.voice}: ${body.input.slice(0, 120)}` }), button("Use", () => use(body), `Use: ${body.input.slice(0, 40)}`)),
    ),
  );
}

function use(body) {
  $("text").value = body.input;
  $("voice").value = body.voice;
  $("format").value = body.response_format;
  highlight();
}

function remember(body) {
  const others = kept().filter((each) => JSON.stringify(each) !== JSON.stringify(body));
  localStorage.setItem(HISTORY, JSON.stringify([body, ...others].slice(0, MOST_KEPT)));
  showHistory();
}

export function speakPanel() {
  wave = new Waveform($("wave"));
  options($("scene"), Object.entries(SCENES), "");
  $("text").addEventListener("input", highlight);
  $("text").addEventListener("scroll", highlight);
  $("speed").addEventListener("input", () => ($("speed-shown").textContent = $("speed").value));
  $("speak-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const body = requestOf($("text").value);
    remember(body);
    attempt(() => speak(body));
  });
  $("stop").addEventListener("click", stop);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
    if (event.key === "Enter" && event.ctrlKey && !$("speak").hidden) $("speak-form").requestSubmit();
  });
  $("preview").addEventListener("click", () => attempt(() => speak({ model: "tts-1", input: "This is how I sound.", voice: $("voice").value, response_format: "wav" })));
  $("copy").addEventListener("click", () =>
    attempt(() => navigator.clipboard.writeText(snippet($("snippet-kind").value, requestOf($("text").value)))),
  );
  $("clear").addEventListener("click", () => {
    localStorage.removeItem(HISTORY);
    showHistory();
  });
  highlight();
  showHistory();
  return {};
}
