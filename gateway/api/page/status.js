// What runs: a few figures of /metrics, and small charts of the last two minutes.

import { ask, askJson } from "/page/api.js";
import { $, attempt, make } from "/page/dom.js";

const EVERY_MS = 2000;
const MOST_POINTS = 60;
const CHARTS = [
  ["Requests that run", (now) => now.sum("gateway_in_flight_requests")],
  ["Requests that wait", (now) => now.sum("gateway_queued_requests")],
  ["Audio seconds a second", (now, before) => rate(now, before, "gateway_audio_seconds_total")],
  ["First audio, mean seconds", (now, before) => mean(now, before, "gateway_time_to_first_audio_seconds")],
];

let timer = null;
let before = null;
const series = CHARTS.map(() => []);

// Prometheus' text format: samples by name, labels aside.
class Samples {
  constructor(text) {
    this.at = performance.now() / 1000;
    this.values = new Map();
    for (const line of text.split("\n")) {
      const found = /^([a-z_]+)(?:\{[^}]*\})? (\S+)/.exec(line);
      if (found) this.values.set(found[1], (this.values.get(found[1]) ?? 0) + Number(found[2]));
    }
  }

  sum(name) {
    return this.values.get(name) ?? 0;
  }
}

const rate = (now, then, name) => (then ? Math.max(0, now.sum(name) - then.sum(name)) / (now.at - then.at) : 0);

function mean(now, then, name) {
  const count = now.sum(`${name}_count`) - (then?.sum(`${name}_count`) ?? 0);
  return count > 0 ? (now.sum(`${name}_sum`) - (then?.sum(`${name}_sum`) ?? 0)) / count : 0;
}

function figure(name, value) {
  return make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }));
}

async function look() {
  const now = new Samples(await (await ask("/metrics")).text());
  const health = await askJson("/health");
  const gpu = health.gpu_name ? [figure("GPU", health.gpu_name), figure("GPU memory", `${health.gpu_memory_used_gb} of ${health.gpu_memory_total_gb} GB`)] : [];
  $("status-figures").replaceChildren(
    figure("State", health.status),
    figure("Model", health.model ?? "–"),
    figure("Engines ready", `${health.upstreams.filter((each) => each.healthy).length} of ${health.upstreams.length}`),
    figure("Slots in use", `${now.sum("gateway_slots_in_use")} of ${now.sum("gateway_slots")}`),
    figure("Requests so far", String(now.sum("gateway_requests_total"))),
    ...gpu,
  );
  CHARTS.forEach(([, value], number) => {
    series[number].push(value(now, before));
    if (series[number].length > MOST_POINTS) series[number].shift();
    draw(number);
  });
  before = now;
}

function draw(number) {
  const canvas = $(`chart-${number}`);
  const pen = canvas.getContext("2d");
  const points = series[number];
  const top = Math.max(1, ...points);
  const shown = points.at(-1);
  $(`chart-value-${number}`).textContent = shown >= 10 ? shown.toFixed(0) : shown.toFixed(2);
  canvas.setAttribute("aria-label", `${CHARTS[number][0]}: ${shown.toFixed(2)}`);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--wave");
  pen.lineWidth = 2;
  pen.beginPath();
  points.forEach((value, i) => pen.lineTo((i / (MOST_POINTS - 1)) * canvas.width, canvas.height - 4 - (value / top) * (canvas.height - 8)));
  pen.stroke();
}

export function statusPanel(facts) {
  $("charts").append(
    ...CHARTS.map(([name], number) =>
      make("figure", {}, make("figcaption", {}, `${name}: `, make("strong", { id: `chart-value-${number}`, textContent: "–" })), make("canvas", { id: `chart-${number}`, width: 300, height: 90, role: "img", "aria-label": name })),
    ),
  );
  if (/^https?:\/\//.test(facts.grafana_url ?? "")) {
    $("grafana").hidden = false;
    $("grafana").firstElementChild.href = facts.grafana_url;
  }
  return {
    shown() {
      attempt(look);
      timer ??= setInterval(() => look().catch(() => {}), EVERY_MS);
    },
    left() {
      clearInterval(timer);
      timer = null;
    },
  };
}
