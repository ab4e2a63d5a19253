// The browser's side of pp.Talk: microphone and loudspeaker on one end, widget messages on the other. Their kinds and
// fields, the parts of a strip and the units of sound stand in messages.py, which hands them over as the trait
// `protocol`. The engine belongs to the widget, not to one view of it, so a talk survives scrolling and second views;
// the views (view.js, which Python appends to this file) only draw. Nothing is fetched: worklet.js comes as a trait.

const IN_FLIGHT = 6; // frames on their way before we drop at the microphone; more where the way is longer
const BUSY = 1.5, GONE = 30, HELLO = 5; // seconds without a word from the kernel

const now = () => performance.now();
const id = () => Array.from(crypto.getRandomValues(new Uint8Array(9)), (x) => x.toString(36)).join("");
const to64 = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
const from64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
const median = (list) => (list.length ? [...list].sort((a, b) => a - b)[list.length >> 1] : NaN);
const bytes = (b) => (b instanceof ArrayBuffer ? b : b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength));

export default () => {
  let engine;
  return {
    initialize({ model }) { engine = new Engine(model); return () => engine.close(); },
    render({ el }) { const view = new View(engine, el); return () => view.close(); },
  };
};

class Engine {
  constructor(model) {
    this.model = model, this.client = id(), this.views = new Set();
    this.protocol = model.get("protocol");
    this.seconds = this.protocol.frame / this.protocol.rate; // of a frame
    this.strips = [], this.words = []; // what there is to draw of each frame (`strip`); {text, at}
    this.about = this.live = this.owner = this.busy = null;
    this.alive = now(), this.hellos = 0, this.plain = { up: false, down: false };
    this.meter = { lost: 0, ignored: 0, gaps: 0, used: 0, ms: [], trip: [], ear: [] };
    this.say("Waiting for the kernel…");
    model.on("msg:custom", (content, buffers) => this.receive(content, buffers ?? []));
    model.on("comm_live_update", () => { this.dead = true; this.hello(); });
    this.leave = () => this.stop("");
    window.addEventListener("pagehide", this.leave);
    this.timer = setInterval(() => this.watch(), 250);
    this.hello();
  }

  close() {
    this.stop("");
    clearInterval(this.timer);
    window.removeEventListener("pagehide", this.leave);
  }

  say(text, kind = "") {
    this.status = { text, kind };
    this.changed();
  }

  changed() { for (const view of this.views) view.update(); }

  // ---- messages

  send(content, buffer) {
    const more = { client: this.client, ...(this.plain.down && { plain: true }) };
    if (buffer && this.plain.up) more.b64 = to64(buffer);
    try {
      this.model.send({ ...content, ...more }, undefined, buffer && !this.plain.up ? [buffer] : []);
    } catch { /* the comm is dead; `watch` says so */ }
  }

  hello() {
    this.asked = now(), this.hellos++;
    this.send({ kind: "hello" }, new Uint8Array(this.protocol.probe).buffer);
  }

  // int16 [35] -> { text, agent_codes, … }: parts of one number as a number, longer ones as an array
  strip(numbers) {
    const parts = Object.entries(this.protocol.strip);
    return Object.fromEntries(parts.map(([part, [start, stop]]) =>
      [part, stop - start === 1 ? numbers[start] : numbers.subarray(start, stop)]));
  }

  isLoud(strip, who) { return strip[`${who}_loudness`] > this.protocol.loud; }

  receive(m, buffers) {
    const blobs = m.b64 ? m.b64.map(from64) : buffers.map(bytes);
    this.alive = now(), this.hellos = 0, this.dead = false;
    if (m.owner !== undefined) this.owner = m.owner;
    if (this.live) this.follow(m);
    this["on_" + m.kind]?.(m, blobs);
    this.changed();
  }

  follow(m) { // is the talk still ours? what has arrived?
    const live = this.live;
    if (m.run === live.run) live.confirmed = true;
    else if (m.owner && m.owner !== this.client && (live.confirmed || now() - live.started > 2000)) {
      return this.hush("Another page has taken over; this one watches.");
    }
    for (const [n, { sent }] of live.flying) if (n <= m.number || now() - sent > 3000) live.flying.delete(n);
    if (this.status.kind === "slow") this.say(live.what, "live");
  }

  on_ready(m, [probe, record]) {
    if (m.to !== this.client) return;
    const whole = probe && new Uint8Array(probe).every((x, i) => x === this.protocol.probe[i]);
    if (!whole && !this.plain.down) { this.plain.down = true; return this.hello(); }
    this.plain.up = m.plain;
    const first = !this.about;
    this.about = m, this.load(m, record);
    const watching = m.owner && m.owner !== this.client;
    if (first || !this.live) this.say(watching ? "Another page is talking; this one watches." : "Press Start and talk.");
  }

  on_record(m, [record]) {
    this.busy = null, this.load(m, record);
    if (this.live) this.say(this.live.what, "live");
  }

  load(m, record) {
    const all = new Int16Array(record), size = this.protocol.strip_size;
    this.strips = m.pieces.map((_, i) => this.strip(all.subarray(size * i, size * (i + 1))));
    this.words = [], this.meter.used = m.used, this.about = { ...this.about, settings: m.settings };
    m.pieces.forEach((piece, i) => this.hear(piece, i));
    for (const view of this.views) view.persona();
  }

  hear(piece, at) {
    if (piece === "" || piece === "·" || piece === "|") return;
    if (piece.startsWith(" ") || !this.words.length) this.words.push({ text: piece.trim(), at });
    else this.words.at(-1).text += piece;
  }

  on_answer(m, [pcm, numbers]) {
    const next = this.strips.length + 1;
    if (m.length === next) this.strips.push(this.strip(new Int16Array(numbers))), this.hear(m.piece, next - 1);
    else if (now() - this.asked > 500) this.hello(); // we missed some: ask for everything
    const meter = this.meter, live = this.live;
    Object.assign(meter, { lost: m.lost, ignored: m.ignored, used: m.used });
    measure(meter.ms, m.ms);
    if (!live || m.run !== live.run || m.number === null) return;
    const { sent } = live.sent.get(m.number) ?? {};
    if (sent) measure(meter.trip, now() - sent);
    this.play(m.number, pcm);
  }

  on_busy(m) { this.busy = m.what, this.say(m.what[0].toUpperCase() + m.what.slice(1) + "…", "busy"); }

  on_done(m, [sound]) {
    if (m.what === "save") this.say(`Saved to ${m.where} (talk.wav, transcript.txt, tokens.npy).`);
    else if (m.what === "question" && m.to === this.client) this.replay(sound);
    else if (m.what === "new" && !this.live) this.say("A new conversation: press Start and talk.");
    else if (m.what === "rewind" && !this.live) this.say("Back at that moment: press Start and go on from there.");
  }

  on_error(m) { this.busy = null, this.say(m.why, "error"); }

  on_stopped(m) {
    if (m.run === undefined || m.run === null) this.hush(m.why || "Stopped.");
    if (!this.live || this.live.run !== m.run) return;
    if (this.status.kind === "error") this.hush(this.status.text, "error"); // which says more
    else this.hush(m.why ? `${m.why} Press Start to go on.` : "Stopped.");
  }

  watch() {
    const quiet = (now() - this.alive) / 1000, live = this.live;
    if (live && quiet > GONE) {
      this.stop("No answer from the kernel for 30 s: the microphone was closed. If it runs again, press Start.");
    } else if (live && quiet > BUSY && !this.busy) {
      this.say("No answer from the kernel (busy, or the network is away); sound is being lost.", "slow");
    } else if (live && !live.confirmed && !live.inline && now() - live.started > 3000 && quiet > 2.5) {
      live.inline = true; // this front end may lose what the kernel's threads send
      this.send({ kind: "start", run: live.run, inline: true });
    }
    const waited = Math.min(quiet, (now() - this.asked) / 1000);
    if (waited > HELLO && (!this.about || this.hellos) && this.hellos < 7) this.hello();
    if (this.hellos > 1 && (!live || this.dead) && this.status.kind !== "gone") {
      this.hush("The kernel does not know this talk: if it was restarted, run the cell again; if busy, wait.", "gone");
      this.about = null;
    }
    for (const view of this.views) view.themed();
    if (live && !this.views.size && now() - this.unseen > 2000) this.stop("Stopped: its view was closed.");
  }

  // ---- sound

  async start(device, clean) {
    this.hush("Asking for the microphone…", "busy");
    try {
      await this.open("Listening: talk.", await microphone(device, clean));
    } catch (error) {
      return this.hush(refusal(error), "refused");
    }
    const [track] = this.live?.stream.getAudioTracks() ?? [];
    if (track) track.onended = () => this.stop("The microphone was taken away. Connect one and press Start.");
  }

  // Play a recording into the conversation at the speed of speech, then silence until the agent has answered.
  async replay(data) {
    const { rate, frame, largest } = this.protocol;
    let sound;
    try {
      const decoded = await new OfflineAudioContext(1, 1, rate).decodeAudioData(data);
      if (decoded.duration > 600) throw new Error("it lasts longer than ten minutes");
      sound = decoded.getChannelData(0);
    } catch (error) {
      const why = error.message || "not a sound";
      return this.say(`This file cannot be played (${why}): choose a wav, mp3, ogg or flac.`, "error");
    }
    this.hush("");
    await this.open("Playing the recording.", null);
    const live = this.live, start = now(), frames = Math.ceil(sound.length / frame);
    let i = 0;
    live.feed = setInterval(() => {
      for (; now() > start + i * 1000 * this.seconds && this.live === live; i++) {
        const piece = sound.subarray(i * frame, (i + 1) * frame), pcm = new Int16Array(frame);
        piece.forEach((x, j) => { pcm[j] = Math.max(-1, Math.min(1, x)) * largest; });
        this.captured(pcm.buffer, live.context.currentTime);
        const quiet = !this.strips.slice(-25).some((strip) => this.isLoud(strip, "agent"));
        if (i > frames + 100 || (i > frames + 25 && quiet)) this.stop("The recording is over.");
      }
    }, 20);
  }

  async open(what, stream) {
    const live = this.live = { what, stream, run: id(), n: 0, started: now(), next: 0 };
    live.flying = new Map(), live.sent = new Map(); // frame -> when it was sent; and where its first sample was
    Object.assign(this.meter, { lost: 0, gaps: 0, ms: [], trip: [], ear: [] });
    try {
      await this.wire(live, { sampleRate: this.protocol.rate, latencyHint: "interactive" });
    } catch { // some browsers refuse a microphone of another rate: take its own
      live.context?.close();
      await this.wire(live, { latencyHint: "interactive" });
    }
    const late = new Promise((done) => setTimeout(done, 2000));
    const awake = await Promise.race([live.context.resume().then(() => true), late]);
    if (!awake) live.what += " There is no sound output here, so you will see the answer but not hear it.";
    if (this.live !== live) return closeSound(live);
    live.started = this.alive = now();
    this.send({ kind: "start", run: live.run, inline: false });
    this.say(live.what, "live");
  }

  async wire(live, options) {
    const context = live.context = new AudioContext(options);
    if (!context.audioWorklet) return; // a page without https: `play` schedules the frames itself
    const url = URL.createObjectURL(new Blob([this.model.get("worklet")], { type: "text/javascript" }));
    await context.audioWorklet.addModule(url);
    URL.revokeObjectURL(url);
    const node = live.node = new AudioWorkletNode(context, "pp-talk",
      { outputChannelCount: [1], processorOptions: this.protocol });
    node.port.onmessage = ({ data }) => {
      if (this.live !== live) return;
      if (data.pcm) this.captured(data.pcm, data.began);
      else this.played(data);
    };
    if (live.stream) context.createMediaStreamSource(live.stream).connect(node);
    node.connect(context.destination);
  }

  captured(pcm, began) {
    const live = this.live;
    if (this.busy) return; // reading a persona: nobody listens
    const n = live.n++, way = Math.ceil(median(this.meter.trip.slice(-50)) / (1000 * this.seconds)) || 0;
    if (live.flying.size >= Math.min(25, Math.max(IN_FLIGHT, way + 4))) return; // dropped; the kernel counts gaps
    live.flying.set(n, { sent: now() });
    live.sent.set(n, { sent: now(), began }), live.sent.delete(n - 100);
    this.send({ kind: "sound", run: live.run, number: n }, pcm);
  }

  play(n, pcm) {
    const { node, context } = this.live;
    if (node) return node.port.postMessage({ n, pcm }, [pcm]);
    const { rate, frame, largest } = this.protocol;
    const buffer = context.createBuffer(1, frame, rate), source = context.createBufferSource();
    buffer.getChannelData(0).set(Float32Array.from(new Int16Array(pcm), (x) => x / (largest + 1)));
    source.buffer = buffer, source.connect(context.destination);
    this.live.next = Math.max(this.live.next, context.currentTime + 0.06);
    source.start(this.live.next), this.live.next += this.seconds;
  }

  played({ played, at, gaps, slack }) { // from the first sample spoken to the first of the answer to it
    const { sent, context } = this.live, { began } = sent.get(played) ?? {};
    const out = (context.outputLatency || 0) + (context.baseLatency || 0);
    if (began !== undefined) measure(this.meter.ear, 1000 * (at - began + out));
    Object.assign(this.meter, { gaps, slack });
  }

  stop(why = "Stopped.") {
    if (this.live) this.send({ kind: "stop" });
    this.hush(why);
  }

  hush(why, kind = "") { // close microphone and loudspeaker
    const live = this.live;
    this.live = null;
    if (live) closeSound(live);
    if (why) this.say(why, kind);
  }
}

function measure(list, x) { // one more, of the last 3000
  list.push(x);
  if (list.length > 3000) list.shift();
}

function closeSound(live) {
  clearInterval(live.feed);
  live.stream?.getTracks().forEach((track) => { track.onended = null; track.stop(); });
  live.node?.port.postMessage({ stop: true });
  live.context?.close().catch(() => {});
}

async function microphone(device, clean) {
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("", "InsecureError");
  return navigator.mediaDevices.getUserMedia({ audio: {
    channelCount: 1, echoCancellation: clean, noiseSuppression: clean, autoGainControl: clean,
    ...(device && { deviceId: { exact: device } }),
  } });
}

function refusal(error) {
  const reason = {
    InsecureError: `browsers give it only to https or localhost pages, and this one is ${location.origin}`,
    NotAllowedError: "the browser or this front end does not allow it here (see the address bar; VS Code cannot)",
    NotFoundError: "none is connected to this computer",
    OverconstrainedError: "the chosen one is gone",
    NotReadableError: "another program holds it",
  }[error.name] ?? `${error.name}: ${error.message}`;
  return `No microphone: ${reason}. A recording works too, below.`;
}
