(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("player");
  const on = new Set(data.labels.map(l => l.name));
  const last = data.times.length - 1;
  let scenario = 0, frame = 0, playing = !matchMedia("(prefers-reduced-motion: reduce)").matches, then = 0;

  function make(tag, attributes, parent, text) {
    const node = document.createElement(tag);
    Object.entries(attributes || {}).forEach(([k, v]) => node.setAttribute(k, v));
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }

  function unpack(text, quantity) {
    const raw = Uint8Array.from(atob(text), c => c.charCodeAt(0));
    const whole = quantity.bytes === 1 ? raw : new Uint16Array(raw.buffer);
    const most = quantity.bytes === 1 ? 255 : 65535, values = new Float32Array(whole.length);
    for (let i = 0; i < whole.length; i++) values[i] = quantity.low + (quantity.high - quantity.low) * whole[i] / most;
    return values;
  }

  // Controls
  const bar = make("div", { class: "controls" }, root);
  const play = make("button", { class: "play", type: "button" }, bar);
  const slider = make("input", { type: "range", min: 0, max: last, step: 1, value: 0, "aria-label": "time" }, bar);
  const clock = make("span", { style: "min-width: 6em; font-size: 14px" }, bar);
  if (data.scenarios.length > 1) {
    const choice = make("select", { "aria-label": "scenario" }, bar);
    const words = ["typical", "easy", "hard"];
    data.scenarios.forEach((s, i) => make("option", { value: i }, choice, "scenario " + s + " (" + words[i] + ")"));
    choice.onchange = () => { scenario = +choice.value; draw(); };
  }
  const chips = make("div", { class: "chips" }, root);
  data.labels.forEach(label => {
    const chip = make("button", { type: "button", "aria-pressed": "true" }, chips);
    make("i", { class: label.dashed ? "dashed" : "", style: "border-color: " + label.colour }, chip);
    chip.appendChild(document.createTextNode(label.name));
    chip.onclick = () => {
      if (on.has(label.name)) on.delete(label.name); else on.add(label.name);
      chip.setAttribute("aria-pressed", on.has(label.name));
      draw();
    };
  });
  play.onclick = () => {
    playing = !playing;
    if (playing && frame >= last) frame = 0;
    caption();
  };
  slider.oninput = () => { frame = +slider.value; playing = false; caption(); draw(); };

  // Panels: one canvas for each quantity, or for each component of lines over time.
  const panels = make("div", { class: "panels" }, root), painters = [];
  data.quantities.forEach(q => {
    const numbers = {};
    Object.entries(q.data).forEach(([label, text]) => { numbers[label] = unpack(text, q); });
    const frames = q.shape[0], size = q.shape.slice(1).reduce((a, b) => a * b, 1);
    const base = k => (scenario * frames + k) * size;
    const count = q.kind === "lines" ? Math.min(size, 4) : 1;
    for (let component = 0; component < count; component++) {
      const figure = make("figure", {}, panels);
      make("figcaption", {}, figure, q.name + (count > 1 ? " " + (component + 1) : ""));
      const canvas = make("canvas", {}, figure);
      const painter = q.kind === "image" ? paintImages : q.kind === "profile" ? paintProfiles : paintLines;
      painters.push(() => painter(canvas, q, numbers, base, frames, size, component));
    }
  });
  const wide = data.quantities.some(q => q.kind === "image");
  panels.style.gridTemplateColumns = wide || painters.length === 1 ? "1fr" : "repeat(auto-fit, minmax(min(100%, 420px), 1fr))";

  function open(canvas, height) {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth;
    canvas.style.height = height + "px";
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.font = "12px " + getComputedStyle(root).fontFamily;
    return [pen, width];
  }

  const short = v => Math.abs(v) < 1e-12 ? "0" : String(+v.toPrecision(2)).replace(/e\+?/, "e");

  function ticks(low, high) {
    const rough = (high - low) / 6, power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9 * step; v += step) found.push(v);
    return found;
  }

  // Axes with a scale for y; hands back functions from numbers to places.
  function axes(pen, width, height, low, high, left, right, label) {
    const pad = 0.06 * (high - low), box = { l: 46, r: width - 8, t: 8, b: height - 34 };
    const x = v => box.l + (v - left) / (right - left || 1) * (box.r - box.l);
    const y = v => box.b - (v - low + pad) / (high - low + 2 * pad) * (box.b - box.t);
    pen.lineWidth = 1; pen.textAlign = "right"; pen.textBaseline = "middle";
    ticks(low, high).forEach(v => {
      pen.strokeStyle = "#e3e7ee"; pen.beginPath(); pen.moveTo(box.l, y(v)); pen.lineTo(box.r, y(v)); pen.stroke();
      pen.fillStyle = "#6b7485"; pen.fillText(short(v), box.l - 7, y(v));
    });
    pen.textAlign = "center"; pen.textBaseline = "top"; pen.fillStyle = "#6b7485";
    ticks(left, right).forEach(v => pen.fillText(short(v), x(v), box.b + 5));
    pen.fillText(label, (box.l + box.r) / 2, box.b + 19);
    pen.beginPath(); pen.rect(box.l - 4, 0, box.r - box.l + 8, box.b + 2); pen.clip();
    return [x, y];
  }

  function pencil(pen, label) {
    pen.strokeStyle = label.colour; pen.lineWidth = label.lead ? 3 : 1.8; pen.lineJoin = "round";
    pen.setLineDash(label.dashed ? [6, 4] : []);
  }

  // The strategy that won is drawn last, above all others.
  const order = data.labels.slice().sort((a, b) => a.lead - b.lead);

  function paintProfiles(canvas, q, numbers, base, frames, size) {
    const [pen, width] = open(canvas, 290);
    const [x, y] = axes(pen, width, 290, q.view[0], q.view[1], 0, size - 1, "cell");
    order.filter(l => on.has(l.name) && numbers[l.name]).forEach(l => {
      const from = base(Math.round(frame / last * (frames - 1))), values = numbers[l.name];
      pencil(pen, l); pen.beginPath();
      for (let i = 0; i < size; i++) pen.lineTo(x(i), y(values[from + i]));
      pen.stroke();
    });
    pen.setLineDash([]);
  }

  function paintLines(canvas, q, numbers, base, frames, size, component) {
    const [pen, width] = open(canvas, 250), end = data.times[last];
    const [x, y] = axes(pen, width, 250, q.view[0], q.view[1], data.times[0], end, "time");
    const now = Math.round(frame / last * (frames - 1));
    const at = k => data.times[0] + (end - data.times[0]) * k / (frames - 1);
    order.filter(l => on.has(l.name) && numbers[l.name]).forEach(l => {
      const values = numbers[l.name];
      [[0, frames - 1, 0.18], [0, now, 1]].forEach(([from, to, alpha]) => {
        pencil(pen, l); pen.globalAlpha = alpha; pen.beginPath();
        for (let k = from; k <= to; k++) pen.lineTo(x(at(k)), y(values[base(k) + component]));
        pen.stroke();
      });
      pen.setLineDash([]); pen.fillStyle = l.colour; pen.beginPath();
      pen.arc(x(at(now)), y(values[base(now) + component]), 4, 0, 7); pen.fill();
    });
    pen.globalAlpha = 1;
  }

  const BLUE_RED = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]];
  const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  function colour(q, value) {
    const [low, high] = q.view, reach = Math.max(-low, high), map = q.signed ? BLUE_RED : VIRIDIS;
    const share = q.signed ? (value + reach) / (2 * reach) : (value - low) / (high - low);
    const place = Math.min(0.9999, Math.max(0, share)) * 4, i = Math.floor(place), f = place - i;
    return map[i].map((c, n) => c + (map[i + 1][n] - c) * f);
  }

  function paintImages(canvas, q, numbers, base, frames) {
    const shown = data.labels.filter(l => on.has(l.name) && numbers[l.name]);
    const [nx, ny] = [q.shape[1], q.shape[2]], columns = Math.max(1, Math.min(shown.length, 5));
    const cell = (canvas.clientWidth - 12 * (columns - 1)) / columns, tall = Math.min(cell * ny / nx, 320);
    const rows = Math.ceil(shown.length / columns), [pen] = open(canvas, Math.max(40, rows * (tall + 28)));
    const from = base(Math.round(frame / last * (frames - 1)));
    shown.forEach((l, n) => {
      const small = document.createElement("canvas"); small.width = nx; small.height = ny;
      const inner = small.getContext("2d"), picture = inner.createImageData(nx, ny), values = numbers[l.name];
      for (let i = 0; i < nx; i++) for (let j = 0; j < ny; j++) {
        const rgb = colour(q, values[from + i * ny + j]), spot = 4 * ((ny - 1 - j) * nx + i);
        picture.data[spot] = rgb[0]; picture.data[spot + 1] = rgb[1]; picture.data[spot + 2] = rgb[2];
        picture.data[spot + 3] = 255;
      }
      inner.putImageData(picture, 0, 0);
      const px = (n % columns) * (cell + 12), py = Math.floor(n / columns) * (tall + 28), w = Math.min(cell, tall * nx / ny);
      pen.fillStyle = l.colour; pen.fillRect(px, py + 5, 10, 10);
      pen.fillStyle = "#1d2433"; pen.textBaseline = "top"; pen.fillText(l.name, px + 16, py + 4);
      pen.imageSmoothingEnabled = false; pen.drawImage(small, px, py + 22, w, tall);
    });
  }

  function caption() { play.textContent = playing ? "Pause" : "Play"; }
  function draw() {
    slider.value = Math.round(frame);
    clock.textContent = "t = " + data.times[Math.round(frame)].toPrecision(3);
    painters.forEach(p => p());
  }
  function tick(now) {
    const passed = Math.min(0.1, (now - then) / 1000); then = now;
    if (playing) {
      frame += passed * last / 4;
      if (frame >= last + last / 5) frame = 0;  // rest at the end for a while
      const kept = frame; frame = Math.min(frame, last); draw(); frame = kept;
    }
    requestAnimationFrame(tick);
  }
  window.addEventListener("resize", () => { frame = Math.min(frame, last); draw(); });
  caption(); draw(); requestAnimationFrame(tick);
})();
