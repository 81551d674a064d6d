
// Moving stick figures: every .player gets a stage for each of its .take parts and one row of controls.
// Without this script, and on paper, the stills that are on the page already stay.
(() => {
  "use strict";
  const YAW = 0.6, PITCH = 0.22, DISTANCE = 4.2, FILLED = 0.42, SPACING = 0.5;  // as in prefopt.motion.camera
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const players = [];
  let colours = {};

  const make = (tag, className, attributes = {}, text = "") => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return element;
  };

  const readColours = () => {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    colours = { l: of("--c-a"), r: of("--c-b"), m: of("--ink-2"), floor: of("--line-strong"), trail: of("--ink-3"), shade: of("--ink") };
  };

  // little-endian 16-bit integers, frame by frame, joint by joint, x y z
  const decode = (take) => {
    const bytes = Uint8Array.from(atob(take.dataset.motion), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer), unit = Number(take.dataset.unit);
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) * unit);
  };

  class Stage {
    constructor(player, take) {
      this.player = player;
      this.take = take;
      this.data = decode(take);
      this.size = 3 * player.parents.length;
      this.frames = this.data.length / this.size;
      this.canvas = make("canvas", "stage", {
        role: "img", tabindex: "0",
        "aria-label": take.dataset.name + ": moving stick figure. Arrow keys turn the view, Home resets it.",
      });
      take.prepend(this.canvas);
      this.listen();
    }

    listen() {
      const { canvas, player } = this;
      let from = null;
      canvas.addEventListener("pointerdown", (event) => {
        from = [event.clientX, event.clientY, player.yaw, player.pitch];
        canvas.setPointerCapture(event.pointerId);
      });
      canvas.addEventListener("pointermove", (event) => {
        if (from) player.turn(from[2] - (event.clientX - from[0]) * 0.01, from[3] + (event.clientY - from[1]) * 0.01);
      });
      for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { from = null; });
      canvas.addEventListener("dblclick", () => player.turn(YAW, PITCH));
      canvas.addEventListener("keydown", (event) => {
        const by = { ArrowLeft: [0.15, 0], ArrowRight: [-0.15, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
        if (by) player.turn(player.yaw + by[0], player.pitch + by[1]);
        else if (event.key === "Home") player.turn(YAW, PITCH);
        else if (event.key === " ") player.toggle();
        else return;
        event.preventDefault();
      });
    }

    // x y z of a joint at a moment, between frames in a straight line
    at(frame, joint) {
      const low = Math.min(Math.floor(frame), this.frames - 1), high = Math.min(low + 1, this.frames - 1);
      const a = low * this.size + 3 * joint, b = high * this.size + 3 * joint, share = Math.min(frame - low, 1);
      return [0, 1, 2].map((k) => this.data[a + k] + share * (this.data[b + k] - this.data[a + k]));
    }

    draw() {
      const { canvas, player } = this;
      const box = canvas.getBoundingClientRect(), ratio = Math.min(devicePixelRatio || 1, 2);
      if (!box.width) return;
      const width = Math.round(box.width * ratio), height = Math.round(box.height * ratio);
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, width, height);
      pen.lineCap = "round";
      const frame = Math.min(player.frame, this.frames - 1);
      const root = this.at(frame, 0), { reach, middle } = player, side = Math.min(width, height);
      const centre = [root[0], middle, root[2]];
      const [cy, sy, cp, sp] = [Math.cos(player.yaw), Math.sin(player.yaw), Math.cos(player.pitch), Math.sin(player.pitch)];
      const away = DISTANCE * reach;
      const project = ([px, py, pz]) => {
        const dx = px - centre[0], dy = py - centre[1], dz = pz - centre[2];
        const x = cy * dx - sy * dz, z = sy * dx + cy * dz, y = cp * dy - sp * z, depth = cp * z + sp * dy;
        const scale = (FILLED * side / reach) * away / Math.max(away - depth, 0.05 * away);
        return [width / 2 + scale * x, height / 2 - scale * y, depth];
      };
      const line = (a, b, colour, thick, alpha = 1) => {
        pen.strokeStyle = colour; pen.lineWidth = thick; pen.globalAlpha = alpha;
        pen.beginPath(); pen.moveTo(a[0], a[1]); pen.lineTo(b[0], b[1]); pen.stroke();
      };
      this.floor(project, root, line, ratio);
      this.trail(project, frame, line, ratio);
      this.shadow(pen, project, root);
      const seen = player.parents.map((_, joint) => project(this.at(frame, joint)));
      const bones = player.parents
        .map((parent, joint) => [parent, joint])
        .filter(([parent]) => parent >= 0)
        .map(([parent, joint]) => [seen[parent], seen[joint], player.sides[joint], (seen[parent][2] + seen[joint][2]) / 2]);
      if (player.head >= 0) bones.push([seen[player.head], null, "m", seen[player.head][2]]);
      bones.sort((a, b) => a[3] - b[3]);
      for (const [a, b, which] of bones) {
        if (b) { line(a, b, colours[which], 0.03 * side); continue; }
        pen.globalAlpha = 1; pen.fillStyle = colours[which];
        pen.beginPath(); pen.arc(a[0], a[1], 0.05 * side, 0, 2 * Math.PI); pen.fill();
      }
    }

    // lines half a metre apart that stay where they are in the world and fade away from the figure
    floor(project, root, line, ratio) {
      const half = 1.9 * this.player.reach, spacing = SPACING * Math.max(1, Math.ceil(half / (6 * SPACING))), pieces = 12;
      for (const axis of [0, 2]) {
        const other = 2 - axis;
        for (let k = Math.ceil((root[axis] - half) / spacing); k * spacing <= root[axis] + half; k++) {
          for (let piece = 0; piece < pieces; piece++) {
            const ends = [piece, piece + 1].map((n) => {
              const point = [0, 0, 0];
              point[axis] = k * spacing;
              point[other] = root[other] + half * (2 * n / pieces - 1);
              return point;
            });
            const off = Math.hypot(k * spacing - root[axis], (ends[0][other] + ends[1][other]) / 2 - root[other]) / half;
            if (off < 1) line(project(ends[0]), project(ends[1]), colours.floor, ratio, (1 - off) * 0.9);
          }
        }
      }
    }

    // where the root goes: solid behind it, faint ahead
    trail(project, frame, line, ratio) {
      const on = (n) => { const [x, , z] = this.at(n, 0); return [x, 0, z]; };
      for (let n = 0; n + 1 < this.frames; n++) {
        const cut = Math.min(Math.max(frame, n), n + 1);
        if (cut > n) line(project(on(n)), project(on(cut)), colours.trail, 2 * ratio, 0.9);
        if (cut < n + 1) line(project(on(cut)), project(on(n + 1)), colours.trail, 1.5 * ratio, 0.25);
      }
    }

    shadow(pen, project, root) {
      const r = 0.22 * this.player.reach;
      pen.globalAlpha = 0.1; pen.fillStyle = colours.shade;
      pen.beginPath();
      for (let k = 0; k < 24; k++) {
        const [x, y] = project([root[0] + r * Math.cos(k * Math.PI / 12), 0, root[2] + r * Math.sin(k * Math.PI / 12)]);
        if (k) pen.lineTo(x, y); else pen.moveTo(x, y);
      }
      pen.closePath(); pen.fill();
    }
  }

  class Player {
    constructor(element) {
      this.element = element;
      this.fps = Number(element.dataset.fps);
      this.parents = JSON.parse(element.dataset.parents);
      this.sides = element.dataset.sides;
      this.head = Number(element.dataset.head);
      this.reach = Number(element.dataset.reach);
      this.middle = Number(element.dataset.middle);
      this.yaw = YAW; this.pitch = PITCH; this.frame = 0; this.playing = false; this.stale = true; this.near = false;
      this.stages = [...element.querySelectorAll(".take[data-motion]")].map((take) => new Stage(this, take));
      this.last = Math.max(...this.stages.map((stage) => stage.frames)) - 1;
      this.controls();
      element.classList.add("live");
      this.show();
    }

    controls() {
      const row = make("div", "controls", { role: "group", "aria-label": "Playback" });
      this.button = make("button", "play", { type: "button" });
      this.range = make("input", "scrub", { type: "range", min: 0, max: this.last, step: 1, value: 0, "aria-label": "Frame" });
      this.told = make("span", "told");
      const speed = make("select", "", { "aria-label": "Speed" });
      for (const times of [0.25, 0.5, 1, 2]) speed.append(new Option(times + "\u00d7", times, times === 1, times === 1));
      const loop = make("input", "", { type: "checkbox" });
      loop.checked = true;
      const label = make("label", "loop");
      label.append(loop, " loop");
      row.append(this.button, this.range, this.told, speed, label);
      this.element.querySelector(".takes").after(row);
      this.speed = speed; this.loop = loop;
      this.button.addEventListener("click", () => this.toggle());
      this.range.addEventListener("input", () => { this.frame = Number(this.range.value); this.play(false); });
    }

    toggle() {
      if (!this.playing && this.frame >= this.last) this.frame = 0;
      this.play(!this.playing);
    }

    play(on) {
      this.playing = on;
      this.chosen = true;
      this.show();
      if (on) wake();
    }

    turn(yaw, pitch) {
      this.yaw = yaw;
      this.pitch = Math.min(1.5, Math.max(-0.1, pitch));
      this.show();
    }

    // words and the slider at once, the picture with the next frame of the screen
    show() {
      const frame = Math.min(Math.round(this.frame), this.last);
      const what = this.playing ? "Pause" : "Play";
      if (this.button.title !== what) {
        this.button.title = what;
        this.button.setAttribute("aria-label", what);
        this.button.textContent = this.playing ? "\u275a\u275a" : "\u25b6\ufe0e";
      }
      this.range.value = frame;
      const seconds = (frame / this.fps).toFixed(2) + " s";
      this.range.setAttribute("aria-valuetext", "frame " + (frame + 1) + " of " + (this.last + 1) + ", " + seconds);
      this.told.textContent = seconds + " \u00b7 frame " + (frame + 1) + "/" + (this.last + 1);
      this.stale = true;
      wake();
    }

    step(seconds) {
      if (this.playing) {
        this.frame += seconds * this.fps * Number(this.speed.value);
        if (this.frame > this.last) {
          // a loop holds its last pose as long as any other
          if (!this.loop.checked) { this.frame = this.last; this.playing = false; }
          else if (this.frame > this.last + 1) this.frame = 0;
        }
        this.show();
      }
      if (this.stale) { this.stale = false; for (const stage of this.stages) stage.draw(); }
    }
  }

  let before = 0, asked = false;
  const tick = (now) => {
    asked = false;
    const seconds = Math.min((now - before) / 1000, 0.1);
    before = now;
    for (const player of players) if (player.near) player.step(seconds);
  };
  const wake = () => {
    if (asked || !players.some((player) => player.near && (player.playing || player.stale))) return;
    asked = true;
    requestAnimationFrame(tick);
  };

  readColours();
  const redraw = () => { readColours(); for (const player of players) player.show(); };
  dark.addEventListener("change", redraw);
  addEventListener("resize", redraw);
  // only what can be seen moves, and it begins by itself unless the reader wants things still
  const eye = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      const player = players.find((one) => one.element === target);
      player.near = isIntersecting;
      if (isIntersecting && !player.chosen && !still.matches) player.play(true);
      else if (isIntersecting) player.show();
    }
  });
  for (const element of document.querySelectorAll(".player")) {
    try { players.push(new Player(element)); eye.observe(element); } catch (error) { console.error(error); }
  }
})();
