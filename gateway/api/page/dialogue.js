// A dialogue: turns, and a voice for each speaker.

import { $, attempt, button, make, options, say } from "/page/dom.js";
import { requestOf, speak, stop } from "/page/speak.js";
import { voiceNames } from "/page/voices.js";

const MOST_SPEAKERS = 4;
let turns = 0;

function addTurn(speaker, text) {
  turns += 1;
  const who = make("select", { "aria-label": `Speaker of turn ${turns}`, onchange: showSpeakers });
  options(who, [...Array(MOST_SPEAKERS).keys()].map((n) => [String(n), `Speaker ${n}`]), String(speaker));
  const words = make("textarea", { rows: 2, value: text, "aria-label": `Text of turn ${turns}` });
  const row = make("div", { className: "turn" }, who, words);
  row.append(button("Remove", () => { row.remove(); showSpeakers(); }, `Remove turn ${turns}`));
  $("turns").append(row);
  showSpeakers();
}

const rows = () => [...$("turns").children].map((row) => ({ speaker: row.children[0].value, text: row.children[1].value.trim() }));

function showSpeakers() {
  const used = [...new Set(rows().map((row) => row.speaker))].sort();
  const chosen = voicesChosen();
  $("speakers").replaceChildren(
    ...used.map((speaker, number) => {
      const id = `speaker-${speaker}`;
      const select = make("select", { id });
      const names = voiceNames();
      options(select, names, chosen[`SPEAKER${speaker}`] || names[number % Math.max(1, names.length)]?.[0]);
      return make("div", {}, make("label", { htmlFor: id, textContent: `Speaker ${speaker}` }), select);
    }),
  );
}

function voicesChosen() {
  const selects = [...$("speakers").querySelectorAll("select")];
  return Object.fromEntries(selects.map((select) => [`SPEAKER${select.id.slice(8)}`, select.value]));
}

export function dialoguePanel() {
  addTurn(0, "Did you hear that?");
  addTurn(1, "No. What was it?");
  $("add-turn").addEventListener("click", () => addTurn(rows().length % 2, ""));
  $("stop-dialogue").addEventListener("click", stop);
  $("speak-dialogue").addEventListener("click", () => {
    const said = rows().filter((row) => row.text);
    if (!said.length) return say("Write at least one turn.");
    const text = said.map((row) => `[SPEAKER${row.speaker}] ${row.text}`).join("\n");
    attempt(() => speak(requestOf(text, { voices: voicesChosen(), voice: undefined })));
  });
  return { shown: showSpeakers };
}
