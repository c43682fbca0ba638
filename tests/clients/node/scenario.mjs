// What a user of OpenAI's JavaScript SDK does; prints what came of it as JSON.
//   node scenario.mjs BASE_URL all|retry
import OpenAI from "openai";
import { VERSION } from "openai/version";

const [baseURL, scenario] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused" });
const TEXT = "It was a bright cold day in April, and the clocks were striking one.";
const base = { model: "tts-1", voice: "alloy", input: TEXT };

async function bytesOf(answer) {
  return Buffer.from(await answer.arrayBuffer());
}

async function formats() {
  const found = {};
  for (const response_format of ["mp3", "opus", "aac", "flac", "wav", "pcm"]) {
    const whole = await bytesOf(await client.audio.speech.create({ ...base, response_format }));
    const answer = await client.audio.speech.create({ ...base, response_format });
    const chunks = [];
    for await (const chunk of answer.body) chunks.push(chunk);
    found[response_format] = {
      whole: whole.toString("base64"),
      streamed: Buffer.concat(chunks).toString("base64"),
      chunks: chunks.length,
      content_type: answer.headers.get("content-type"),
    };
  }
  found.default = { whole: (await bytesOf(await client.audio.speech.create(base))).toString("base64") };
  return found;
}

async function events() {
  const answer = await client.audio.speech.create({
    ...base, response_format: "pcm", stream_format: "sse",
  });
  const found = [];
  let rest = "";
  for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines.filter(Boolean)) found.push(JSON.parse(line.replace(/^data: /, "")));
  }
  return { content_type: answer.headers.get("content-type"), events: found, rest };
}

async function extras() {
  const pcm = { ...base, response_format: "pcm" };
  const lengthOf = async (change) =>
    (await bytesOf(await client.audio.speech.create({ ...pcm, ...change }))).length;
  return {
    plain: await lengthOf({}),
    fast: await lengthOf({ speed: 2 }),
    instructed: await lengthOf({ instructions: "hushed" }),
    low_rate: await lengthOf({ sample_rate: 8000 }),
  };
}

function toldBy(error) {
  return {
    class: error.constructor.name, status: error.status, param: error.param, code: error.code,
    type: error.type, request_id: error.requestID,
  };
}

async function errors() {
  const found = {};
  const attempts = {
    voice: { voice: "nobody" }, model: { model: "whisper-9" }, input: { input: "" },
    speed: { speed: 9 }, response_format: { response_format: "ogg" },
  };
  for (const [name, change] of Object.entries(attempts)) {
    await client.audio.speech.create({ ...base, ...change }).catch((error) => {
      found[name] = toldBy(error);
    });
  }
  return found;
}

// An engine that fails in mid-answer: what a reader of the body hears, or null for nothing.
async function cut() {
  const input = `fault-cut-96000 ${TEXT}`;
  const answer = await client.audio.speech.create({ ...base, input, response_format: "pcm" });
  return answer.arrayBuffer().then(() => null, (error) => error.constructor.name);
}

async function models() {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model.id);
  const missing = await client.models.retrieve("whisper-9").catch((error) => error.code);
  return { listed, one: (await client.models.retrieve("tts-1")).id, missing };
}

// A call that is refused, then one that goes on by the SDK's own retries.
async function patient() {
  const found = { refusal: null };
  await client.audio.speech.create(base, { maxRetries: 0 }).catch((error) => {
    found.refusal = toldBy(error);
    found.told_seconds = Number(error.headers.get("retry-after-ms")) / 1000;
  });
  let calls = 0;
  const counting = new OpenAI({
    baseURL, apiKey: "unused", maxRetries: 1000,
    fetch: (...request) => { calls += 1; return fetch(...request); },
  });
  const began = performance.now();
  const answer = await counting.audio.speech.create({ ...base, response_format: "pcm" });
  found.seconds = (performance.now() - began) / 1000;
  found.bytes = (await bytesOf(answer)).length;
  found.retries = calls - 1;
  return found;
}

const found = scenario === "retry" ? await patient() : {
  version: VERSION,
  formats: await formats(),
  events: await events(),
  extras: await extras(),
  errors: await errors(),
  cut: await cut(),
  models: await models(),
};
console.log(JSON.stringify(found));
