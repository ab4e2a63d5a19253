// Runs on the browser's audio thread: cuts the microphone into frames of 80 ms, plays the frames that come back.
//
// Frames are int16 at 24 kHz; the units come from messages.py, as the options of the processor. Where the audio context
// runs at another rate, a resampler stands on either side. Playback keeps a little sound in hand (`slack`), because
// frames do not arrive as evenly as they are played: 60 ms, 40 more after each gap, up to 400, and 20 less after five
// seconds without one. More is only delay, and is cut out.

const SLACK = 0.06, MORE = 0.04, LESS = 0.02, MOST = 0.4, TRIM = 5; // seconds

// Band-limited, streaming: push samples at one rate, get those at the other that can be computed by now.
class Resampler {
  constructor(from, to) {
    const gcd = (a, b) => (b ? gcd(b, a % b) : a), g = gcd(from, to), cut = 0.95 * Math.min(1, to / from);
    this.up = to / g, this.down = from / g, this.half = Math.ceil(16 / cut);
    this.taps = Array.from({ length: this.up }, (_, phase) => // one windowed sinc for each fraction of a sample
      Float32Array.from({ length: 2 * this.half }, (_, j) => {
        const t = j - this.half + 1 - phase / this.up, x = Math.PI * cut * t;
        return cut * (x ? Math.sin(x) / x : 1) * Math.cos(Math.PI * t / 2 / this.half) ** 2;
      }));
    this.rest = new Float32Array(this.half - 1);
    this.at = (this.half - 1) * this.up; // where the next sample lies, in 1/up of a sample of `rest`
  }

  push(samples) {
    const x = new Float32Array(this.rest.length + samples.length), out = [];
    x.set(this.rest), x.set(samples, this.rest.length);
    for (; Math.floor(this.at / this.up) + this.half < x.length; this.at += this.down) {
      const taps = this.taps[this.at % this.up], start = Math.floor(this.at / this.up) - this.half + 1;
      let y = 0;
      for (let j = 0; j < taps.length; j++) y += x[start + j] * taps[j];
      out.push(y);
    }
    const used = Math.floor(this.at / this.up) - this.half + 1;
    this.rest = x.slice(used), this.at -= used * this.up;
    return Float32Array.from(out);
  }
}

const same = { push: (samples) => samples };
const resampler = (from, to) => (from === to ? same : new Resampler(from, to));

class Talk extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate, frame, largest } }) {
    super();
    this.size = frame, this.seconds = frame / rate, this.largest = largest; // of a frame; 1.0 as an int16
    this.down = resampler(sampleRate, rate), this.up = resampler(rate, sampleRate);
    this.frame = new Int16Array(frame), this.filled = 0;
    this.queue = [], this.offset = 0; // frames to play; how far the first one is played
    this.playing = false, this.wait = 0, this.slack = SLACK, this.gaps = 0;
    this.gain = 0, this.held = 0, this.last = 0; // fade from a held value into what follows
    this.least = Infinity, this.looked = 0, this.had = 0; // the smallest stock since we looked; gaps until then
    this.alive = true;
    this.port.onmessage = ({ data }) => (data.pcm ? this.receive(data) : (this.alive = false));
  }

  process([input], [output]) {
    if (input[0]) this.capture(input[0]);
    this.play(output[0]);
    return this.alive;
  }

  capture(samples) {
    for (const x of this.down.push(samples)) {
      if (!this.filled) this.began = currentTime;
      this.frame[this.filled++] = Math.max(-1, Math.min(1, x)) * this.largest;
      if (this.filled === this.size) {
        this.port.postMessage({ pcm: this.frame.buffer, began: this.began }, [this.frame.buffer]);
        this.frame = new Int16Array(this.size), this.filled = 0;
      }
    }
  }

  get stock() { // seconds in hand
    return (this.queue.reduce((sum, { pcm }) => sum + pcm.length, 0) - this.offset) / sampleRate;
  }

  receive({ n, pcm }) {
    const samples = this.up.push(Float32Array.from(new Int16Array(pcm), (x) => x / (this.largest + 1)));
    if (!this.playing && !this.queue.length) this.wait = this.slack * sampleRate;
    if (this.playing) this.least = Math.min(this.least, this.stock);
    this.queue.push({ n, pcm: samples });
    const surplus = this.stock - this.slack - this.seconds;
    if (surplus > this.seconds) this.skip(surplus); // a burst: go to the newest
    if (currentTime - this.looked > TRIM) {
      if (this.gaps === this.had) this.slack = Math.max(SLACK, this.slack - LESS);
      this.had = this.gaps;
      if (this.least < Infinity && this.least > this.slack + 0.02) this.skip(this.least - this.slack);
      this.least = Infinity, this.looked = currentTime;
    }
  }

  skip(seconds) {
    this.offset += Math.round(seconds * sampleRate);
    while (this.queue.length && this.offset >= this.queue[0].pcm.length) {
      this.offset -= this.queue.shift().pcm.length;
    }
    this.gain = 0, this.held = this.last;
  }

  play(out) {
    for (let i = 0; i < out.length; i++) {
      if (!this.playing && this.queue.length && --this.wait <= 0) this.playing = true;
      let x = 0;
      if (this.playing && this.queue.length) {
        const first = this.queue[0];
        if (!first.reported) this.report(first, i);
        x = first.pcm[this.offset++];
        if (this.offset >= first.pcm.length) this.queue.shift(), this.offset = 0;
      } else if (this.playing) { // a gap
        this.playing = false, this.gaps++, this.slack = Math.min(MOST, this.slack + MORE);
        this.gain = 0, this.held = this.last;
      }
      this.gain = Math.min(1, this.gain + 200 / sampleRate); // 5 ms
      this.last = out[i] = x * this.gain + this.held * (1 - this.gain);
    }
  }

  report(frame, i) { // when its first sample is, or would have been, played
    frame.reported = true;
    const at = currentTime + (i - this.offset) / sampleRate;
    this.port.postMessage({ played: frame.n, at, gaps: this.gaps, slack: this.slack });
  }
}

registerProcessor("pp-talk", Talk);
