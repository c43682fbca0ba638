// SillyTavern's own providers for Chatterbox servers, unchanged, with as much of a browser around
// them as they touch: `node sillytavern.mjs FOLDER ADDRESS`. FOLDER holds chatterbox.js and
// tts-webui.js out of its npm package, and is written to.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, address] = process.argv.slice(2);

// What the providers import of the rest of SillyTavern.
writeFileSync(join(folder, 'package.json'), '{"type": "module"}');
writeFileSync(
    join(folder, 'index.js'),
    'export const saveTtsProviderSettings = () => {}; export const getPreviewString = () => "Hi.";',
);

// jQuery: every call answers with something that can be called again, and is empty.
const chain = new Proxy(() => chain, {
    get: (_, name) => (name === 'length' ? 0 : name === 'val' ? () => '' : chain),
    apply: () => chain,
});
globalThis.$ = chain;
globalThis.document = { createElement: () => ({}), getElementById: () => null };
globalThis.toastr = { error: () => {} };
for (const level of ['log', 'info', 'debug', 'warn', 'error']) console[level] = () => {};

const open = async name => import(pathToFileURL(join(folder, name)));
const heard = async response => ({
    type: response.headers.get('content-type'),
    audio: Buffer.from(await response.arrayBuffer()).toString('base64'),
});
const failure = async promise => promise.then(() => null, error => error.message);

async function chatterbox() {
    const { ChatterboxTtsProvider } = await open('chatterbox.js');
    const provider = new ChatterboxTtsProvider();
    await provider.loadSettings({ provider_endpoint: address });
    const said = {};
    for (const { voice_id: id } of provider.voices) {
        said[id] = await heard(await provider.generateTts('Hello there, my friend.', id));
    }
    provider.settings.output_format = 'opus';
    provider.settings.exaggeration = 2;
    provider.settings.cfg_weight = 0;
    const expressive = await heard(await provider.generateTts('Hello there.', 'belinda.wav'));
    const unknown = await failure(provider.generateTts('Hello there.', 'Nobody.wav'));
    return { ready: provider.ready, voices: provider.voices, said, expressive, unknown };
}

async function ttsWebui() {
    const { TtsWebuiProvider } = await open('tts-webui.js');
    const provider = new TtsWebuiProvider();
    provider.settings = {
        ...provider.defaultSettings,
        provider_endpoint: `${address}/v1/audio/speech`,
        available_voices: ['belinda'],
    };
    const voices = await provider.fetchTtsVoiceObjects();
    const said = {};
    for (const streaming of [true, false]) {
        provider.settings.streaming = streaming;
        const text = 'Hello there, my friend.';
        said[streaming] = await heard(await provider.fetchTtsGeneration(text, 'belinda'));
    }
    return { voices, said };
}

const found = { chatterbox: await chatterbox(), ttsWebui: await ttsWebui() };
process.stdout.write(JSON.stringify(found));
