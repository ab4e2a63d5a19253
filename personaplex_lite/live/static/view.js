// What a view of the widget shows: one canvas on which everything has the same time axis (a column is a frame of
// 80 ms), and native controls around it, so that keyboard and screen reader work by themselves.
// Blue is always the agent, orange always you, as in viz.py.

const AGENT = "#1f83d0", USER = "#d9741a";
const SHADES = [["#1a5596", AGENT, "#7fd0e8"], ["#94390f", USER, "#f5cf6b"]].map(shades);
const TOP = { agent: 58, who: 110, user: 124, axis: 176, text: 198, agentGrid: 210, userGrid: 264, end: 316 };
const WAVE = 48, CELL = 6, LANES = 4, LANE = 13; // pixels

function shades(colours) { // 64 steps through three colours
  const rgb = colours.map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
  return Array.from({ length: 64 }, (_, i) => {
    const x = i / 31.5, k = Math.min(1, Math.floor(x)), part = x - k;
    return `rgb(${rgb[k].map((a, j) => Math.round(a + (rgb[k + 1][j] - a) * part))})`;
  });
}

const HTML = `
<div class="pp-row">
  <button type="button" class="pp-start" disabled>Start</button>
  <p class="pp-status" role="status"></p>
  <select class="pp-mic" aria-label="Microphone"><option value="">Default microphone</option></select>
  <label title="Turn it off with headphones"><input type="checkbox" class="pp-clean" checked> echo cancelling</label>
</div>
<canvas class="pp-canvas" role="img"></canvas>
<p class="pp-words" role="log" aria-label="What the agent says"></p>
<dl class="pp-meter">
  <div><dt>work for a frame</dt><dd class="pp-ms"></dd></div>
  <div><dt>mouth to ear</dt><dd class="pp-ear"></dd></div>
  <div><dt>frames lost</dt><dd class="pp-lost"></dd></div>
  <div><dt>conversation</dt><dd class="pp-used"></dd></div>
</dl>
<p class="pp-advice" role="status"></p>
<div class="pp-row">
  <button type="button" class="pp-new">New conversation</button>
  <button type="button" class="pp-save">Save</button>
  <label class="pp-grow">moment <input type="range" class="pp-at" min="0" max="0" value="0" aria-label="Moment"></label>
  <output class="pp-when">0.0 s</output>
  <button type="button" class="pp-back">Rewind</button>
  <button type="button" class="pp-fork" title="Go on from the chosen moment as the persona below">Rewind as persona</button>
</div>
<details class="pp-persona"><summary>Persona, from the next conversation on</summary>
  <div class="pp-row">
    <label>voice <select class="pp-voice"></select></label>
    <label>seed <input type="number" class="pp-seed" min="0" step="1"></label>
    <label>text temperature <input type="number" class="pp-text" min="0" max="2" step="0.1"></label>
    <label>voice temperature <input type="number" class="pp-audio" min="0" max="2" step="0.1"></label>
  </div>
  <label class="pp-block">role <textarea class="pp-role" rows="3" maxlength="4000" spellcheck="false"></textarea></label>
</details>
<details class="pp-file"><summary>A recording instead of a microphone</summary>
  <div class="pp-row pp-questions"></div>
  <label class="pp-block pp-drop">choose or drop a sound file <input type="file" class="pp-pick" accept="audio/*"></label>
</details>`;

class View {
  constructor(engine, el) {
    this.engine = engine;
    const root = this.root = document.createElement("div");
    root.className = "pp-talk", root.innerHTML = HTML, root.talk = engine;
    root.setAttribute("role", "group"), root.setAttribute("aria-label", "Live conversation");
    el.append(root);
    const parts = root.querySelectorAll("[class^=pp-]");
    this.$ = Object.fromEntries(Array.from(parts, (x) => [x.className.split(" ").pop().slice(3), x]));
    root.querySelectorAll("button, select, input, textarea, summary").forEach(own);
    this.at = null; // the moment chosen; null: follow the talk
    this.listen(), this.microphones();
    this.resized = new ResizeObserver(() => this.update());
    this.resized.observe(this.$.canvas);
    this.devices = () => this.microphones();
    navigator.mediaDevices?.addEventListener?.("devicechange", this.devices);
    engine.views.add(this);
    if (engine.about) this.persona();
    this.update();
  }

  close() {
    this.resized.disconnect();
    navigator.mediaDevices?.removeEventListener?.("devicechange", this.devices);
    this.engine.views.delete(this), this.engine.unseen = performance.now();
    this.root.remove();
  }

  listen() {
    const { $, engine } = this, on = (x, what, call) => x.addEventListener(what, call);
    on($.start, "click", () => (engine.live ? engine.stop() : engine.start($.mic.value, $.clean.checked)
      .then(() => this.microphones())));
    on($.new, "click", () => { this.at = null; engine.send({ kind: "new", settings: this.settings() }); });
    on($.save, "click", () => engine.send({ kind: "save" }));
    on($.at, "input", () => { this.at = Number($.at.value); this.update(); });
    on($.back, "click", () => this.rewind(null));
    on($.fork, "click", () => this.rewind(this.settings()));
    on($.pick, "change", () => { this.file($.pick.files[0]); $.pick.value = ""; });
    on($.drop, "dragover", (event) => event.preventDefault());
    on($.drop, "drop", (event) => { event.preventDefault(); this.file(event.dataTransfer.files[0]); });
    for (const key of ["seed", "text", "audio", "role", "voice"]) on($[key], "input", () => { this.edited = true; });
  }

  rewind(settings) { // settings: go on from there as these; null: as it was
    this.engine.send({ kind: "rewind", at: Number(this.$.at.value), settings });
    this.at = null;
  }

  async file(file) { if (file) this.engine.replay(await file.arrayBuffer()); }

  settings() { // what the persona panel says
    const { $ } = this, number = (x, or) => (Number.isFinite(x.valueAsNumber) ? x.valueAsNumber : or);
    this.edited = false;
    return { voice: $.voice.value, role: whole($.role.value), seed: Math.max(0, Math.round(number($.seed, 0))),
      text_temperature: number($.text, 0.7), audio_temperature: number($.audio, 0.8) };
  }

  persona() { // the panel follows the conversation until somebody edits it
    const { $, engine: { about } } = this, { settings } = about;
    const option = (value, text = value) => new Option(text, value);
    $.questions.replaceChildren(...about.questions.map((name) => {
      const button = document.createElement("button");
      button.type = "button", button.textContent = name, own(button);
      button.addEventListener("click", () => this.engine.send({ kind: "question", name }));
      return button;
    }));
    if (this.edited) return;
    $.voice.replaceChildren(...(about.voices.includes(settings.voice) ? [] : [option("", "as given in the code")]),
      ...about.voices.map((name) => option(name)));
    $.voice.value = settings.voice, $.role.value = settings.role, $.seed.value = settings.seed;
    $.text.value = settings.text_temperature, $.audio.value = settings.audio_temperature;
  }

  async microphones() {
    const all = await navigator.mediaDevices?.enumerateDevices?.().catch(() => []) ?? [], { mic } = this.$;
    const named = all.filter((d) => d.kind === "audioinput" && d.label && d.deviceId !== "default");
    const chosen = mic.value;
    mic.replaceChildren(new Option("Default microphone", ""), ...named.map((d) => new Option(d.label, d.deviceId)));
    mic.value = named.some((d) => d.deviceId === chosen) ? chosen : "";
  }

  themed() { if (this.ink && getComputedStyle(this.root).color !== this.ink) this.update(); }

  // Called at every message; drawn at most once per frame of the screen.
  update() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => { this.drawing = 0; this.show(); this.draw(); });
  }

  show() {
    const { $, engine } = this, { status, live, about, busy, strips } = engine;
    const put = (x, text) => { if (x.textContent !== text) x.textContent = text; };
    put($.start, live ? "Stop" : engine.owner && engine.owner !== engine.client ? "Take over" : "Start");
    $.start.disabled = !about && !live, $.start.classList.toggle("pp-live", Boolean(live));
    put($.status, status.text), $.status.dataset.kind = status.kind;
    if (status.kind === "refused") $.file.open = true;
    for (const x of [$.new, $.fork]) x.disabled = !about || Boolean(busy);
    for (const x of [$.save, $.back]) x.disabled = !about || Boolean(busy) || !strips.length;
    put($.words, engine.words.slice(-60).map((word) => word.text).join(" "));
    $.at.max = strips.length;
    if (this.at === null || this.at > strips.length) this.at = null, $.at.value = strips.length;
    put($.when, `${(Number($.at.value) * engine.seconds).toFixed(1)} s`);
    $.at.setAttribute("aria-valuetext", $.when.textContent);
    this.meter(put);
  }

  meter(put) {
    const { $, engine: { meter, about, live, seconds } } = this, room = 1000 * seconds; // ms that a frame may take
    const ms = median(meter.ms.slice(-50)), ear = median(meter.ear.slice(-50)), context = about?.context ?? 1;
    const level = (x, share, bad) => {
      x.style.setProperty("--share", `${Math.min(100, 100 * (share || 0))}%`), x.dataset.bad = bad;
    };
    const round = (x, unit) => (Number.isFinite(x) ? `${Math.round(x)} ${unit}` : "–");
    put($.ms, `${round(ms, "ms")} of ${room}`), level($.ms, ms / room, ms > room);
    put($.ear, round(ear, "ms")), level($.ear, ear / 600, ear > 400);
    put($.lost, `${meter.lost}${live?.n ? ` of ${live.n}` : ""}`);
    level($.lost, meter.lost / (live?.n || 1), meter.lost > 0);
    put($.used, `${(meter.used * seconds).toFixed(0)} of ${(context * seconds).toFixed(0)} s`);
    level($.used, meter.used / context, meter.used > context);
    put($.advice, ms > room ? "The model is too slow here: every gap is a lost frame. Try quantised weights, fewer "
      + "programs beside it, or a faster machine." : meter.used > context
      ? "The beginning, and with it the persona, has left the model's memory: start a new conversation." : "");
  }

  // ---- the picture

  draw() {
    const { canvas } = this.$, { strips, about, seconds } = this.engine, ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, label = width < 520 ? 38 : 64, column = width < 520 ? 4 : 5;
    if (!width || this.root.offsetParent === null) return;
    if (canvas.width !== Math.round(width * ratio)) {
      canvas.width = width * ratio, canvas.height = TOP.end * ratio;
    }
    const g = canvas.getContext("2d"), ink = this.ink = getComputedStyle(this.root).color;
    g.setTransform(ratio, 0, 0, ratio, 0, 0), g.clearRect(0, 0, width, TOP.end);
    g.font = "11px system-ui, sans-serif", g.textBaseline = "middle";
    const columns = Math.floor((width - label) / column), shown = this.at ?? strips.length;
    const before = Math.round(columns * (this.at === null ? 1 : 0.7));
    const first = Math.max(0, Math.min(shown - before, strips.length - columns));
    const last = Math.min(strips.length, first + columns), x = (i) => label + (i - first) * column;
    this.axis(g, ink, label, width, first, first + columns, x);
    const agent = this.speaks("agent", first, last), user = this.speaks("user", first, last);
    for (let i = first; i < last; i++) {
      const strip = strips[i], k = i - first;
      g.globalAlpha = agent[k] && user[k] ? 0.22 : 0, g.fillStyle = ink; // both at once
      g.fillRect(x(i), TOP.agent, column, TOP.axis - TOP.agent), g.globalAlpha = 1;
      wave(g, strip.agent_peaks, x(i), column, TOP.agent, AGENT);
      wave(g, strip.user_peaks, x(i), column, TOP.user, USER);
      if (agent[k]) g.fillStyle = AGENT, g.fillRect(x(i), TOP.who, column, 5);
      if (user[k]) g.fillStyle = USER, g.fillRect(x(i), TOP.who + 6, column, 5);
      if (about) cells(g, strip, x(i), column, about);
    }
    this.text(g, first, last, x, width);
    if (this.at !== null) g.fillStyle = ink, g.fillRect(x(this.at) - 1, TOP.agent, 2, TOP.end - TOP.agent);
    canvas.setAttribute("aria-label", "Both voices, who speaks, and the 17 rows of tokens, second "
      + `${(first * seconds).toFixed(0)} to ${(last * seconds).toFixed(0)}`);
  }

  axis(g, ink, label, width, first, end, x) {
    g.fillStyle = ink, g.globalAlpha = 0.75, g.textAlign = "right";
    const narrow = label < 50, names = [["agent", TOP.agent + WAVE / 2], ["you", TOP.user + WAVE / 2],
      ["text", TOP.text + 4], [narrow ? "agent" : "agent 1–8", TOP.agentGrid + 24], [narrow ? "you" : "you 1–8",
      TOP.userGrid + 24]];
    for (const [name, y] of names) g.fillText(name, label - 6, y);
    g.globalAlpha = 0.25;
    for (const y of [TOP.agent + WAVE / 2, TOP.user + WAVE / 2]) g.fillRect(label, y - 0.5, width - label, 1);
    g.textAlign = "center";
    const { seconds } = this.engine;
    for (let s = Math.ceil(first * seconds); s / seconds < end; s++) {
      const at = x(s / seconds);
      g.globalAlpha = 0.25, g.fillRect(at, TOP.axis, 1, 4);
      g.globalAlpha = 0.75;
      if (s % 2 === 0 && at < width - 14) g.fillText(s ? `${s}` : "0 s", at, TOP.axis + 10);
    }
    g.globalAlpha = 1;
  }

  speaks(who, first, last, bridge = 3) { // gaps of up to three frames inside speech are filled
    const busy = [];
    let since = -Infinity;
    for (let i = first; i < last; i++) {
      busy[i - first] = this.engine.isLoud(this.engine.strips[i], who);
      if (!busy[i - first]) continue;
      if (i - since <= bridge + 1) busy.fill(true, since - first + 1, i - first);
      since = i;
    }
    return busy;
  }

  text(g, first, last, x, width) { // each word above its time, in the lowest lane that has room
    const free = Array(LANES).fill(-Infinity);
    g.textAlign = "left", g.fillStyle = AGENT;
    for (const { text, at } of this.engine.words) {
      if (at < first || at >= last) continue;
      const long = g.measureText(text).width, place = Math.min(x(at), width - long);
      let lane = free.findIndex((end) => end <= place);
      if (lane < 0) lane = free.indexOf(Math.min(...free));
      const left = Math.max(place, free[lane]);
      free[lane] = left + long + 5;
      g.fillText(text, left, TOP.agent - 8 - LANE * lane);
      g.globalAlpha = 0.5, g.fillRect(x(at), TOP.agent - 2 - LANE * lane, 1, 4 + LANE * lane), g.globalAlpha = 1;
    }
  }
}

function own(control) { // a key pressed here is for the control: JupyterLab's B would add a cell, D D delete one
  control.dataset.lmSuppressShortcuts = "true";
}

function wave(g, peaks, x, column, top, colour) {
  g.fillStyle = colour;
  const wide = column / peaks.length;
  peaks.forEach((peak, j) => {
    const half = Math.max(0.5, Math.min(1, peak / 20000) * WAVE / 2);
    g.fillRect(x + j * wide, top + WAVE / 2 - half, wide + 0.2, 2 * half);
  });
}

function cells(g, strip, x, column, about) { // pale where padding or silence
  const cell = (id, quiet, shades, turn, y, high) => {
    if (id < 0) return; // nothing there
    g.fillStyle = quiet ? "rgba(128,128,128,.16)" : shades[Math.floor(((id * 0.618034 + turn * 0.37) % 1) * 64)];
    g.fillRect(x, y, column - 0.5, high);
  };
  const codes = (side, shades, turn, top) => side.forEach((id, i) =>
    cell(id, id === about.silence[i], shades, turn + i, top + CELL * i, CELL - 0.5));
  cell(strip.text, strip.text === about.pad || strip.text === about.epad, SHADES[0], 0, TOP.text, 8);
  codes(strip.agent_codes, SHADES[0], 1, TOP.agentGrid);
  codes(strip.user_codes, SHADES[1], 9, TOP.userGrid);
}

function whole(text) { // a letter that was cut in two is replaced: the kernel takes none
  return text.toWellFormed?.() ?? text;
}
