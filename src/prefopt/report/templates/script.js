// Read-outs on charts, copy buttons, the current section in the contents, and open folds on paper.
// Everything on the page is there without this script.
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";

  const show = (value, percent) => digits(value, percent).replace("-", "\u2212");
  const digits = (value, percent) => {
    if (percent) return (100 * value).toFixed(1) + "%";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(2);
    return Number(value.toPrecision(4)).toLocaleString("en-US", { maximumSignificantDigits: 4 });
  };

  const nearest = (points, x) => {
    let low = 0, high = points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < x) low = middle; else high = middle;
    }
    return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? points[low] : points[high];
  };

  const node = (tag, className, text) => {
    const element = document.createElement(tag);
    element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  for (const chart of document.querySelectorAll("[data-chart]")) {
    const data = JSON.parse(chart.dataset.chart);
    const series = data.series.filter((s) => s.points.length);
    if (!series.length) continue;
    // a frontier is not ordered by x; a step axis is
    const ordered = series.every((s) => s.points.every((p, i) => !i || s.points[i - 1][0] <= p[0]));
    const svg = chart.querySelector("svg");
    const [x0, x1, px0, px1] = data.x, [y0, y1, py0, py1] = data.y;
    const toX = (x) => px0 + ((x - x0) / (x1 - x0)) * (px1 - px0);
    const toY = (y) => py0 + ((y - y0) / (y1 - y0)) * (py1 - py0);
    const hair = document.createElementNS(SVG, "g");
    hair.setAttribute("class", "hair");
    svg.append(hair);
    const tip = node("div", "tip");
    tip.hidden = true;
    chart.append(tip);

    const mark = (tag, attributes) => {
      const element = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      hair.append(element);
    };

    const move = (event) => {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const px = (event.clientX - box.left) * scale, py = (event.clientY - box.top) * scale;
      let x = x0 + ((px - px0) / (px1 - px0)) * (x1 - x0);
      let rows = [];
      if (ordered) {
        // snap to the point nearest to the pointer, then read every other series where it is measured close by
        const hits = series.map((s) => nearest(s.points, x));
        x = hits.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best - x) ? p[0] : best), hits[0][0]);
        rows = series.map((s) => [s, nearest(s.points, x)]).filter(([, p]) => Math.abs(toX(p[0]) - toX(x)) < 12);
      } else {
        let best = Infinity;
        for (const s of series) for (const p of s.points) {
          const distance = Math.hypot(toX(p[0]) - px, toY(p[1]) - py);
          if (distance < best) { best = distance; rows = [[s, p]]; }
        }
        x = rows[0][1][0];
      }
      hair.replaceChildren();
      mark("line", { x1: toX(x), x2: toX(x), y1: py0, y2: py1 });
      tip.replaceChildren(node("div", "tip-x", data.xLabel + " " + show(x, data.xPercent)));
      for (const [s, p] of rows) {
        mark("circle", { cx: toX(p[0]), cy: toY(p[1]), r: 4, style: "--s:var(--c-" + s.colour + ")" });
        const row = node("div", "tip-row");
        const key = node("span", "key block");
        key.style.setProperty("--s", "var(--c-" + s.colour + ")");
        row.append(key, node("span", "", p[0] === x ? s.label : s.label + " at " + show(p[0], data.xPercent)), node("b", "", show(p[1], data.percent)));
        tip.append(row);
      }
      tip.hidden = false;
      const place = chart.getBoundingClientRect();
      const left = box.left - place.left + toX(x) / scale;
      const flip = left + tip.offsetWidth + 16 > place.width;
      tip.style.left = Math.max(0, flip ? left - tip.offsetWidth - 12 : left + 12) + "px";
      tip.style.top = box.top - place.top + 8 + "px";
    };
    const leave = () => { tip.hidden = true; hair.replaceChildren(); };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", leave);
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        // browsers refuse the clipboard to some local files: leave the text selected instead
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }

  const links = [...document.querySelectorAll(".toc a")];
  const targets = links.map((link) => document.getElementById(link.hash.slice(1)));
  const follow = () => {
    let current = 0;
    targets.forEach((target, i) => { if (target && target.getBoundingClientRect().top < 140) current = i; });
    if (innerHeight + scrollY >= document.documentElement.scrollHeight - 4) current = links.length - 1;
    links.forEach((link, i) => {
      if (i === current) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    });
  };
  addEventListener("scroll", follow, { passive: true });
  follow();

  addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });
})();
