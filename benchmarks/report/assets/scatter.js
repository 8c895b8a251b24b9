// Stability against collateral. plotly draws the axes and the box or lasso; the points, which may be
// a hundred thousand, are painted on a canvas under them, and found again by a grid of cells.

const MARGIN = { l: 56, r: 14, t: 10, b: 46 };
const CELL = 16;

class Scatter {
  constructor(features, selection, view, show) {
    Object.assign(this, { features, selection, view, show });
    this.axes = axisChoices(features);
    const pick = (wanted) => Math.max(0, this.axes.findIndex((axis) => axis.name === wanted));
    this.x = this.axes[pick("predicted_collateral_per_effect")];
    this.y = this.axes[pick("predicted_stability_abs")] ?? this.axes[1];
    if (this.x === this.y) this.y = this.axes[1] ?? this.x;
    this.mode = "lasso";
    this.highlighted = -1;
    this.build();
    view.listeners.push(() => this.paint());
    selection.listeners.push(() => this.paint());
  }

  build() {
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.plot = el("div", { class: "axes" });
    this.tip = el("div", { class: "tip", hidden: true });
    this.place = el(
      "div",
      {
        class: "scatter",
        role: "img",
        "aria-label": "Scatter of the features; the table below lists the same features",
        mousemove: (event) => this.point(event),
        mouseleave: () => this.leave(),
      },
      this.plot,
      this.canvas,
      this.tip,
    );
    const modes = el("div", { class: "modes", role: "group", "aria-label": "What dragging does" });
    for (const [mode, name] of [["lasso", "Lasso"], ["select", "Box"], ["zoom", "Zoom"]]) {
      const button = el("button", { type: "button", class: "quiet", "aria-pressed": String(mode === this.mode) }, name);
      button.addEventListener("click", () => {
        this.mode = mode;
        for (const other of modes.children) other.setAttribute("aria-pressed", String(other === button));
        if (window.Plotly && this.chart.drawn) window.Plotly.relayout(this.plot, { dragmode: mode });
      });
      modes.append(button);
    }
    const reset = el("button", { type: "button", class: "quiet", click: () => this.reset() }, "Reset view");
    this.element = el(
      "div",
      { class: "scatter-box" },
      el("div", { class: "controls" }, this.chooser("x", "Across"), this.chooser("y", "Up"), el("span", { class: "push" }), modes, reset),
      this.place,
      el(
        "p",
        { class: "legend" },
        el("span", { class: "key measured" }), "steered and measured",
        el("span", { class: "key predicted" }), "predicted only",
        el("span", { class: "key chosen" }), "chosen",
        el("span", { class: "key off" }), "outside the filter",
      ),
    );
    this.chart = new Chart(this.plot, () => this.draw());
    new ResizeObserver(() => this.resized()).observe(this.place);
  }

  chooser(side, name) {
    const options = this.axes.map((axis) =>
      el("option", { value: axis.name, selected: axis === this[side] }, axis.title),
    );
    const change = (event) => {
      this[side] = this.axes.find((axis) => axis.name === event.target.value);
      if (this.chart.drawn) this.draw();
    };
    return el("label", {}, name, el("select", { change }, options));
  }

  ranges() {
    const shown = this.view.order;
    const found = {};
    for (const side of ["x", "y"]) {
      const values = this.features.numbers[this[side].name];
      let low = Infinity;
      let high = -Infinity;
      for (const row of shown) {
        const value = values[row];
        if (value < low) low = value;
        if (value > high) high = value;
      }
      if (low > high) [low, high] = [0, 1];
      const pad = 0.04 * (high - low || Math.abs(high) || 1);
      found[side] = [low - pad, high + pad];
    }
    return found;
  }

  draw() {
    const layout = baseLayout();
    const { x, y } = this.ranges();
    layout.margin = MARGIN;
    layout.dragmode = this.mode;
    layout.hovermode = false;
    layout.showlegend = false;
    layout.newselection = { line: { color: colour("accent"), width: 1.5, dash: "dot" } };
    layout.activeselection = { fillcolor: "rgba(0,0,0,0)" };
    for (const [side, range] of [["x", x], ["y", y]]) {
      layout[`${side}axis`].range = range;
      layout[`${side}axis`].title = { ...layout[`${side}axis`].title, text: this[side].title };
    }
    // One unseen point, without which there would be nothing that a box or a lasso could select in.
    const trace = { type: "scatter", mode: "markers", x: [x[0]], y: [y[0]], marker: { opacity: 0 }, hoverinfo: "skip" };
    const config = { displayModeBar: false, responsive: true, showTips: false, scrollZoom: false };
    window.Plotly.react(this.plot, [trace], layout, config);
    if (!this.listening) {
      this.listening = true;
      this.plot.on("plotly_relayout", () => this.paint());
      this.plot.on("plotly_relayouting", () => this.paint());
      this.plot.on("plotly_selected", (event) => this.selected(event));
      this.plot.on("plotly_click", () => this.pinned());
      this.plot.addEventListener("click", () => this.pinned());
    }
    this.paint();
  }

  reset() {
    if (this.chart.drawn) this.draw();
  }

  resized() {
    if (this.chart?.drawn) this.paint();
  }

  /** From values to pixels of the canvas. */
  scale() {
    const box = this.place.getBoundingClientRect();
    const [x0, x1] = this.plot.layout.xaxis.range;
    const [y0, y1] = this.plot.layout.yaxis.range;
    const width = box.width - MARGIN.l - MARGIN.r;
    const height = box.height - MARGIN.t - MARGIN.b;
    return {
      width: box.width,
      height: box.height,
      inner: [MARGIN.l, MARGIN.t, width, height],
      x: (value) => MARGIN.l + ((value - x0) / (x1 - x0)) * width,
      y: (value) => MARGIN.t + (1 - (value - y0) / (y1 - y0)) * height,
    };
  }

  paint() {
    if (!this.chart?.drawn || !this.plot.layout) return;
    const scale = this.scale();
    const density = window.devicePixelRatio || 1;
    this.canvas.width = scale.width * density;
    this.canvas.height = scale.height * density;
    const pen = this.canvas.getContext("2d");
    pen.scale(density, density);
    pen.beginPath();
    pen.rect(...scale.inner);
    pen.clip();
    const xs = this.features.numbers[this.x.name];
    const ys = this.features.numbers[this.y.name];
    const many = this.view.order.length;
    const size = many > 20_000 ? 1.2 : many > 4000 ? 1.8 : 2.6;
    const cells = new Map();
    const across = Math.ceil(scale.width / CELL);
    const mark = (row, half, paint) => {
      pen.fillStyle = paint;
      pen.fillRect(scale.x(xs[row]) - half, scale.y(ys[row]) - half, 2 * half, 2 * half);
    };
    const round = (row, radius, paint) => {
      pen.fillStyle = paint;
      pen.beginPath();
      pen.arc(scale.x(xs[row]), scale.y(ys[row]), radius, 0, 2 * Math.PI);
      pen.fill();
    };
    const dot = many > 20_000 ? mark : round;
    pen.globalAlpha = 0.25;
    const faint = colour("faint");
    for (let row = 0; row < this.features.n; row += 1) {
      if (!this.view.shown[row] && !Number.isNaN(xs[row])) mark(row, 0.8, faint);
    }
    pen.globalAlpha = many > 4000 ? 0.55 : 0.8;
    const measured = colour("accent");
    const predicted = colour("second");
    for (const row of this.view.order) {
      if (Number.isNaN(xs[row]) || Number.isNaN(ys[row])) continue;
      if (!this.selection.has(row)) dot(row, size, this.features.measured(row) ? measured : predicted);
      const cell = Math.floor(scale.y(ys[row]) / CELL) * across + Math.floor(scale.x(xs[row]) / CELL);
      if (cells.has(cell)) cells.get(cell).push(row);
      else cells.set(cell, [row]);
    }
    pen.globalAlpha = 1;
    const chosen = colour("chosen");
    for (const row of this.selection.rows()) {
      if (!Number.isNaN(xs[row])) round(row, size + 0.4, chosen);
    }
    if (this.highlighted >= 0) {
      pen.strokeStyle = colour("ink");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(scale.x(xs[this.highlighted]), scale.y(ys[this.highlighted]), 7, 0, 2 * Math.PI);
      pen.stroke();
    }
    this.found = { cells, across, scale };
  }

  /** The feature nearest to a place, within a few pixels; -1 where there is none. */
  nearest(left, top) {
    if (!this.found) return -1;
    const { cells, across, scale } = this.found;
    const xs = this.features.numbers[this.x.name];
    const ys = this.features.numbers[this.y.name];
    let best = -1;
    let least = 14 ** 2;
    for (let dy = -1; dy <= 1; dy += 1) {
      for (let dx = -1; dx <= 1; dx += 1) {
        const cell = (Math.floor(top / CELL) + dy) * across + Math.floor(left / CELL) + dx;
        for (const row of cells.get(cell) ?? []) {
          const distance = (scale.x(xs[row]) - left) ** 2 + (scale.y(ys[row]) - top) ** 2;
          if (distance < least) [best, least] = [row, distance];
        }
      }
    }
    return best;
  }

  point(event) {
    const box = this.place.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const row = event.buttons ? -1 : this.nearest(left, top);
    this.pointed = row;
    this.tip.hidden = row < 0;
    if (row < 0) return;
    const { features } = this;
    this.tip.replaceChildren(
      el("strong", {}, `Feature ${features.index[row]}`),
      ...[this.x, this.y].map((axis) =>
        el("span", {}, `${columnTitle(axis.name)}: `, el("b", {}, short(features.number(axis.name, row)))),
      ),
      el("span", { class: "tokens" }, features.wordsOf("tokens", row).slice(0, 4).map(token)),
      el("span", {}, bdi(features.description(row))),
    );
    const right = left > box.width / 2;
    this.tip.style.left = right ? "" : `${left + 14}px`;
    this.tip.style.right = right ? `${box.width - left + 14}px` : "";
    this.tip.style.top = `${Math.min(top + 10, box.height - 90)}px`;
  }

  leave() {
    this.pointed = -1;
    this.tip.hidden = true;
  }

  pinned() {
    if (!(this.pointed >= 0) || this.dragged) return;
    this.highlight(this.pointed);
    this.show(this.pointed);
  }

  highlight(row) {
    this.highlighted = row;
    this.paint();
  }

  selected(event) {
    if (!event || !(event.range || event.lassoPoints)) return;
    const xs = this.features.numbers[this.x.name];
    const ys = this.features.numbers[this.y.name];
    const polygon = event.lassoPoints ? event.lassoPoints : null;
    const test = polygon
      ? (x, y) => insidePolygon(x, y, polygon.x, polygon.y)
      : (x, y) => between(x, event.range.x) && between(y, event.range.y);
    const rows = this.view.order.filter((row) => test(xs[row], ys[row]));
    const kind = polygon ? "lasso" : "box";
    this.selection.take(rows, `${kind}: ${this.y.title} against ${this.x.title}; ${this.view.told()}`, true);
    window.Plotly.relayout(this.plot, { selections: [] });
  }
}

function between(value, [a, b]) {
  return value >= Math.min(a, b) && value <= Math.max(a, b);
}

/** Whether a point lies inside a polygon (even-odd rule). */
function insidePolygon(x, y, xs, ys) {
  let inside = false;
  for (let i = 0, j = xs.length - 1; i < xs.length; j = i, i += 1) {
    const crosses = ys[i] > y !== ys[j] > y;
    if (crosses && x < ((xs[j] - xs[i]) * (y - ys[i])) / (ys[j] - ys[i]) + xs[i]) inside = !inside;
  }
  return inside;
}

function cleaner(name) {
  if (/(clean_score|stability_abs)$/.test(name)) return " (higher is cleaner)";
  return /collateral_per_effect$/.test(name) ? " (lower is cleaner)" : "";
}

/** Columns that can be an axis. */
function axisChoices(features) {
  return Object.keys(features.numbers)
    .filter((name) => !/_(low|high)$/.test(name) && features.has(name))
    .map((name) => ({ name, title: columnTitle(name) + cleaner(name) }));
}
