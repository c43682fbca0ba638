// What a user of OpenAI's JavaScript SDK does; prints what came of it as JSON.
//   node scenario.mjs BASE_URL all|retry
import OpenAI from "openai";

const [baseURL, scenario] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "unused" });
const TEXT = "It was a bright cold day in April, and the clocks were striking one.";
const base = { model: "tts-1", voice: "alloy", input: TEXT };

async function formats() {
  const found = {};
  for (const response_format of ["mp3", "opus", "aac", "flac", "wav", "pcm"]) {
    const whole = Buffer.from(await (await client.audio.speech.create({ ...base, response_format })).arrayBuffer());
    const answer = await client.audio.speech.create({ ...base, response_format });
    let streamed = 0;
    let chunks = 0;
    for await (const chunk of answer.body) {
      streamed += chunk.length;
      chunks += 1;
    }
    found[response_format] = {
      whole: whole.toString("base64"), streamed, chunks, type: answer.headers.get("content-type"),
    };
  }
  return found;
}

async function events() {
  const answer = await client.audio.speech.create({ ...base, response_format: "pcm", stream_format: "sse" });
  const text = await answer.text();
  return text.split("\n\n").filter(Boolean).map((line) => JSON.parse(line.replace(/^data: /, "")));
}

async function errors() {
  const found = {};
  const attempts = { voice: { voice: "nobody" }, model: { model: "whisper-9" }, input: { input: "" }, speed: { speed: 9 } };
  for (const [name, change] of Object.entries(attempts)) {
    try {
      await client.audio.speech.create({ ...base, ...change });
    } catch (error) {
      found[name] = {
        class: error.constructor.name, status: error.status, param: error.param, code: error.code,
        requestID: error.requestID,
      };
    }
  }
  return found;
}

if (scenario === "retry") {
  const patient = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 6 });
  const answer = await patient.audio.speech.create({ ...base, response_format: "pcm" });
  console.log(JSON.stringify({ bytes: (await answer.arrayBuffer()).byteLength }));
} else {
  const models = [];
  for await (const model of client.models.list()) models.push(model.id);
  console.log(JSON.stringify({ formats: await formats(), events: await events(), errors: await errors(), models }));
}
