// Vercel's AI SDK with its OpenAI provider: `node ai_sdk.mjs BASE_URL`.

import { createOpenAI } from '@ai-sdk/openai';
import { experimental_generateSpeech as generateSpeech } from 'ai';

const openai = createOpenAI({ baseURL: process.argv[2], apiKey: 'none' });
const text = 'Hello there, my friend.';

const found = {};
for (const outputFormat of [undefined, 'mp3', 'wav', 'opus', 'aac', 'flac', 'pcm']) {
    const { audio, responses } = await generateSpeech({
        model: openai.speech('tts-1'),
        text,
        voice: 'alloy',
        ...(outputFormat && { outputFormat }),
    });
    found[outputFormat ?? 'default'] = {
        format: audio.format,
        audio: audio.base64,
        type: responses[0].headers['content-type'],
    };
}
const instructed = await generateSpeech({
    model: openai.speech('gpt-4o-mini-tts'),
    text,
    voice: 'coral',
    speed: 1.5,
    instructions: 'Speak in a calm tone.',
    outputFormat: 'wav',
});
found.instructed = { audio: instructed.audio.base64 };
found.refused = await generateSpeech({
    model: openai.speech('tts-1'),
    text,
    voice: 'nobody',
    maxRetries: 0,
}).then(() => null, error => ({ status: error.statusCode, message: error.message }));
process.stdout.write(JSON.stringify(found));
