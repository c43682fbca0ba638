// Voices: presets of the engine and recordings of the library.

import { ask, askJson } from "/page/api.js";
import { $, attempt, button, make, options, say } from "/page/dom.js";
import { speak } from "/page/speak.js";

let known = [];
let facts;

export const voiceNames = () => known.map((voice) => [voice.name]);

export async function loadVoices() {
  known = (await askJson("/v1/audio/voices")).voices;
  const standard = facts?.default_voice;
  for (const id of ["voice", "job-voice"]) options($(id), voiceNames(), $(id).value || standard);
  show();
}

function show() {
  $("voice-list").replaceChildren(...known.map(row));
}

function row(voice) {
  const own = "created_at" in voice;
  const facts_ = own ? `${voice.duration_seconds?.toFixed(1)} s, ${voice.language}${voice.default ? ", default" : ""}` : "preset";
  const item = make("li", {}, make("span", { className: "grow" }, make("strong", { textContent: voice.name }), ` ${facts_}`));
  if (own && voice.transcript) item.firstChild.append(make("br"), make("small", { textContent: voice.transcript }));
  item.append(button("Speak", () => speak({ model: "tts-1", input: "This is how I sound.", voice: voice.name, response_format: "wav" }), `Speak with ${voice.name}`));
  if (own && facts.chatterbox) {
    item.append(
      button("Listen", () => listen(voice.name), `Listen to the recording of ${voice.name}`),
      button("Make default", () => makeDefault(voice.name), `Make ${voice.name} the default`),
    );
  }
  if (own) item.append(button("Delete", () => remove(voice), `Delete ${voice.name}`));
  return item;
}

async function listen(name) {
  const answer = await ask(`/voices/${encodeURIComponent(name)}/download`);
  const audio = $("voice-audio");
  audio.src = URL.createObjectURL(await answer.blob());
  audio.hidden = false;
  await audio.play();
}

async function makeDefault(name) {
  await ask("/voices/default", { method: "POST", body: new URLSearchParams({ voice_name: name }) });
  await loadVoices();
}

async function remove(voice) {
  if (!window.confirm(`Delete the voice ${voice.name}?`)) return;
  await ask(`/v1/audio/voices/${encodeURIComponent(voice.id)}`, { method: "DELETE" });
  await loadVoices();
}

let recorder = null;
let recording = null;

async function record() {
  if (recorder) return recorder.stop();
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    stream.getTracks().forEach((track) => track.stop());
    recording = new Blob(parts, { type: recorder.mimeType });
    recorder = null;
    $("record").textContent = "Record";
    $("record").setAttribute("aria-pressed", "false");
    $("recorded").textContent = `Recorded ${Math.round(recording.size / 1024)} KiB.`;
  });
  recorder.start();
  $("record").textContent = "End the recording";
  $("record").setAttribute("aria-pressed", "true");
}

async function add() {
  const sample = $("voice-file").files[0] ?? recording;
  if (!sample) return say("Choose a file, or record one.");
  const form = new FormData();
  form.set("name", $("voice-name").value.trim());
  form.set("audio_sample", sample, sample.name ?? "recording");
  if ($("voice-text").value.trim()) form.set("transcript", $("voice-text").value.trim());
  await ask("/v1/audio/voices", { method: "POST", body: form });
  recording = null;
  $("voice-form").reset();
  $("recorded").textContent = "Added.";
  await loadVoices();
}

export function voicesPanel(theFacts) {
  facts = theFacts;
  $("voice-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(add);
  });
  $("record").addEventListener("click", () => attempt(record));
  return { shown: () => attempt(loadVoices) };
}
