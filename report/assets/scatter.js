// Stability against collateral, or whatever axes are chosen. plotly draws the axes and the box or
// lasso; the points lie above them on a canvas of their own (points.js).

const MARGIN = { l: 56, r: 14, t: 10, b: 46 };

class Scatter {
  constructor(features, selection, view, show) {
    Object.assign(this, { features, selection, view, show });
    this.axes = axisChoices(features);
    const named = (name) => this.axes.find((axis) => axis.name === name);
    const either = (target) => named(`predicted_${target}`) ?? named(`measured_${target}`);
    this.x = either(features.collateral) ?? this.axes[0];
    this.y = either("stability_abs") ?? this.axes.find((axis) => axis !== this.x);
    this.mode = "lasso";
    this.removes = false;
    this.highlighted = -1;
    this.build();
    view.listeners.push(() => this.paint());
    selection.listeners.push(() => this.paint());
  }

  build() {
    this.points = new Points();
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
      this.points.canvas,
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
    const remove = el(
      "button",
      {
        type: "button",
        class: "quiet",
        id: "remove",
        "aria-pressed": "false",
        title: "A lasso or a box takes features away from those chosen",
        click: () => {
          this.removes = !this.removes;
          remove.setAttribute("aria-pressed", String(this.removes));
        },
      },
      "Take away",
    );
    const reset = el("button", { type: "button", class: "quiet", click: () => this.reset() }, "Reset");
    this.element = el(
      "div",
      { class: "scatter-box" },
      el("div", { class: "controls" }, this.chooser("x", "Across"), this.chooser("y", "Up"), el("span", { class: "push" }), modes, remove, reset),
      this.place,
      el(
        "p",
        { class: "legend" },
        this.features.has("measured_clean_score") ? [el("span", { class: "key measured" }), "steered and measured"] : null,
        el("span", { class: "key predicted" }), this.features.rank ? "predicted only" : "not steered",
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
    this.points.paint(this, this.scale());
  }

  /** The values of the features along both axes. */
  values() {
    return [this.x, this.y].map((axis) => this.features.numbers[axis.name]);
  }

  point(event) {
    const box = this.place.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const row = event.buttons ? -1 : this.points.nearest(left, top);
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
    if (!(this.pointed >= 0)) return;
    this.highlight(this.pointed);
    this.show(this.pointed);
  }

  highlight(row) {
    this.highlighted = row;
    this.paint();
  }

  selected(event) {
    if (!event || !(event.range || event.lassoPoints)) return;
    const [xs, ys] = this.values();
    const polygon = event.lassoPoints ? event.lassoPoints : null;
    const test = polygon
      ? (x, y) => insidePolygon(x, y, polygon.x, polygon.y)
      : (x, y) => between(x, event.range.x) && between(y, event.range.y);
    const rows = this.view.order.filter((row) => test(xs[row], ys[row]));
    const kind = polygon ? "lasso" : "box";
    const how = `${kind}: ${this.y.title} against ${this.x.title}; ${this.view.told()}`;
    if (this.removes) this.selection.remove(rows, how);
    else this.selection.add(rows, how);
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
  if (/(clean_score|stability_abs|both_axes)$/.test(name)) return " (higher is cleaner)";
  return /collateral_(relative_)?(per_effect|mass)$/.test(name) ? " (lower is cleaner)" : "";
}

/** Columns that can be an axis. */
function axisChoices(features) {
  return Object.keys(features.numbers)
    .filter((name) => !/_(low|high)$/.test(name) && features.has(name))
    .map((name) => ({ name, title: columnTitle(name) + cleaner(name) }));
}
