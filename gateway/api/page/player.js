// Plays audio while it streams: WAV and PCM sample by sample, MP3 through the browser's own decoder.

const WAV_HEADER_BYTES = 44;
const START_DELAY_SECONDS = 0.08; // what one burst of the network may be late
const PEAKS_PER_SECOND = 40;

// 16-bit mono samples, scheduled one behind the other.
class SamplePlayer {
  constructor(header, rate, wave) {
    this.skip = header ? WAV_HEADER_BYTES : 0;
    this.rate = rate;
    this.wave = wave;
    this.held = new Uint8Array(0);
    this.context = new AudioContext();
    this.context.resume();
    this.next = 0;
  }

  feed(bytes) {
    const data = new Uint8Array(this.held.length + bytes.length);
    data.set(this.held);
    data.set(bytes, this.held.length);
    if (this.skip) {
      if (data.length < this.skip) return void (this.held = data);
      this.rate = new DataView(data.buffer).getUint32(24, true);
    }
    const whole = data.length - ((data.length - this.skip) % 2);
    const samples = new Int16Array(data.slice(this.skip, whole).buffer);
    this.held = data.slice(whole);
    this.skip = 0;
    if (!samples.length) return;
    const buffer = this.context.createBuffer(1, samples.length, this.rate);
    const channel = buffer.getChannelData(0);
    for (let i = 0; i < samples.length; i += 1) channel[i] = samples[i] / 32768;
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    this.next = Math.max(this.next, this.context.currentTime + START_DELAY_SECONDS);
    source.start(this.next);
    this.next += buffer.duration;
    this.wave.add(channel, this.rate);
  }

  async end() {
    const left = this.next - this.context.currentTime;
    await new Promise((done) => setTimeout(done, Math.max(0, left * 1000)));
    this.stop();
  }

  stop() {
    if (this.context.state !== "closed") this.context.close();
  }
}

// A container format that MediaSource knows, in the page's audio element.
class ElementPlayer {
  constructor(audio, type) {
    this.audio = audio;
    this.queue = [];
    this.source = new MediaSource();
    audio.src = URL.createObjectURL(this.source);
    audio.play().catch(() => {});
    this.source.addEventListener("sourceopen", () => {
      this.buffer = this.source.addSourceBuffer(type);
      this.buffer.addEventListener("updateend", () => this.pump());
      this.pump();
    });
  }

  pump() {
    if (!this.buffer || this.buffer.updating || this.source.readyState !== "open") return;
    if (this.queue.length) this.buffer.appendBuffer(this.queue.shift());
    else if (this.ended) this.source.endOfStream();
  }

  feed(bytes) {
    this.queue.push(bytes);
    this.pump();
  }

  async end() {
    this.ended = true;
    this.pump();
    if (!this.audio.ended) await new Promise((done) => this.audio.addEventListener("ended", done, { once: true }));
  }

  stop() {
    this.audio.pause();
  }
}

// A format that nothing here can play while it comes: it is played when it is whole.
const silent = { feed() {}, async end() {}, stop() {} };

export function playerOf(format, audio, wave) {
  if (format === "wav") return new SamplePlayer(true, 24000, wave);
  if (format === "pcm") return new SamplePlayer(false, 24000, wave);
  if (format === "mp3" && window.MediaSource?.isTypeSupported("audio/mpeg")) return new ElementPlayer(audio, "audio/mpeg");
  return silent;
}

export class Waveform {
  constructor(canvas) {
    this.canvas = canvas;
    this.clear();
  }

  clear() {
    this.peaks = [];
    this.draw();
  }

  add(samples, rate) {
    const size = Math.floor(rate / PEAKS_PER_SECOND);
    for (let start = 0; start < samples.length; start += size) {
      let peak = 0;
      for (let i = start; i < Math.min(start + size, samples.length); i += 1) peak = Math.max(peak, Math.abs(samples[i]));
      this.peaks.push(peak);
    }
    requestAnimationFrame(() => this.draw());
  }

  async decode(blob) {
    const context = new AudioContext();
    try {
      const audio = await context.decodeAudioData(await blob.arrayBuffer());
      this.clear();
      this.add(audio.getChannelData(0), audio.sampleRate);
      return audio.duration;
    } finally {
      context.close();
    }
  }

  draw() {
    const { width, height } = this.canvas;
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--wave");
    const step = Math.max(2, width / Math.max(this.peaks.length, 1));
    const each = Math.max(1, (this.peaks.length * step) / width);
    for (let x = 0, i = 0; i < this.peaks.length; i += each, x += step) {
      const tall = Math.max(1, this.peaks[Math.floor(i)] * height);
      pen.fillRect(x, (height - tall) / 2, Math.max(1, step - 1), tall);
    }
  }
}
