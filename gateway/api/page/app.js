// Tabs, the key, and what every panel knows of the gateway.

import { key } from "/page/api.js";
import { $, attempt } from "/page/dom.js";
import { loadVoices, voicesPanel } from "/page/voices.js";
import { speakPanel } from "/page/speak.js";
import { dialoguePanel } from "/page/dialogue.js";
import { jobsPanel } from "/page/jobs.js";
import { statusPanel } from "/page/status.js";

const tabs = [...document.querySelectorAll('[role="tab"]')];
const panels = {};

function show(name) {
  for (const tab of tabs) {
    const chosen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !chosen;
    panels[tab.id.slice(4)]?.[chosen ? "shown" : "left"]?.();
  }
  history.replaceState(null, "", `#${name}`);
}

for (const [number, tab] of tabs.entries()) {
  tab.addEventListener("click", () => show(tab.id.slice(4)));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(number + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });
}

async function start() {
  const facts = await (await fetch("/page/facts.json")).json();
  $("version").textContent = `Version ${facts.version}`;
  $("key-form").hidden = !facts.keys;
  $("seed-field").hidden = !facts.seed;
  $("tab-jobs").hidden = !facts.openai;
  panels.speak = speakPanel();
  panels.dialogue = dialoguePanel();
  panels.voices = voicesPanel(facts);
  panels.jobs = jobsPanel();
  panels.status = statusPanel(facts);
  const wanted = location.hash.slice(1);
  show(wanted in panels ? wanted : "speak");
  await attempt(loadVoices);
}

$("key").value = key.get();
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  attempt(loadVoices);
});

start();
