// Charts of figures with intervals, drawn by plotly when they come near the window, or are printed.

// A series has a colour (of Okabe and Ito 2008, lightened on dark ground) and a shape.
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "cross"];
const SHAPES = ["M1 6a5 5 0 1 0 10 0a5 5 0 1 0-10 0", "M1.5 1.5h9v9h-9z", "M6 0l6 6l-6 6l-6-6z", "M6 1l6 10h-12z", "M1 3l2-2l3 3l3-3l2 2l-3 3l3 3l-2 2l-3-3l-3 3l-2-2l3-3z", "M4 0h4v4h4v4h-4v4h-4v-4h-4v-4h4z"];
const FONT = 'Inter, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif';
const ROW_HEIGHT = 22;
const charts = new Set(); // in the order of the page
let plotlyLoading = null;

/** plotly, unpacked and run when first needed. */
function loadPlotly() {
  plotlyLoading ??= unpack("plotly").then((code) => {
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
    return window.Plotly;
  });
  return plotlyLoading;
}

const probe = el("span", { hidden: true });

/** A colour of the style sheet as it is in the present theme. */
function colour(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

/** The colour of the n-th series. */
function paintOf(n) {
  return colour(`c${1 + (n % SYMBOLS.length)}`);
}

/** What the shapes of a chart stand for. */
function seriesKey(names) {
  const sign = (n) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "0 0 12 12");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", SHAPES[n % SHAPES.length]);
    path.style.fill = `var(--c${1 + (n % SHAPES.length)})`;
    svg.append(path);
    return svg;
  };
  return el("div", { class: "series" }, names.map((name, n) => el("span", {}, sign(n), visible(name))));
}

/** A chart: `draw(element)` is called when it comes into view, and after a change of theme. */
class Chart {
  constructor(element, draw) {
    this.element = element;
    this.draw = draw;
    this.drawn = false;
    charts.add(this);
    nearby.observe(element);
    element.chart = this;
  }

  show() {
    if (!window.Plotly || !this.element.isConnected) return;
    this.drawn = true;
    nearby.unobserve(this.element);
    this.draw(this.element);
  }
}

const nearby = new IntersectionObserver(
  async (entries) => {
    const seen = entries.filter((entry) => entry.isIntersecting);
    if (seen.length === 0) return;
    await loadPlotly();
    for (const { target } of seen) if (!target.chart.drawn) target.chart.show();
  },
  { rootMargin: "300px" },
);

function redrawCharts() {
  for (const chart of charts) if (chart.drawn) chart.show();
}

/** Draw, one by one, what nobody has scrolled to yet: it may be searched, or printed. */
function drawInIdleTime() {
  const idle = window.requestIdleCallback ?? ((call) => setTimeout(call, 200));
  const next = async () => {
    if (!(await loadPlotly())) return;
    const waiting = [...charts].find((chart) => !chart.drawn);
    if (!waiting) return;
    waiting.show();
    idle(next);
  };
  idle(next);
}

function drawAllCharts() {
  for (const chart of charts) chart.show();
}

/** Forget the charts within a part of the page that is about to go. */
function dropCharts(within) {
  for (const chart of charts) {
    if (!within.contains(chart.element)) continue;
    nearby.unobserve(chart.element);
    if (chart.drawn) window.Plotly.purge(chart.element);
    charts.delete(chart);
  }
}

function baseLayout() {
  const axis = {
    gridcolor: colour("line"),
    linecolor: colour("line"),
    zeroline: false,
    tickfont: { color: colour("soft"), size: 11 },
    title: { font: { color: colour("soft"), size: 11 }, standoff: 8 },
  };
  return {
    font: { family: FONT, color: colour("ink"), size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: {
      bgcolor: colour("raised"),
      bordercolor: colour("line"),
      font: { family: FONT, color: colour("ink"), size: 12 },
    },
    dragmode: false,
    xaxis: { ...axis },
    yaxis: { ...axis },
  };
}

/** Charts of a section, side by side where there is room. */
function panelCharts(panels) {
  const wide = panels.length === 1;
  const names = panels[0].series.map((series) => series.name);
  const together = el(
    "div",
    { class: wide ? "panels one" : "panels" },
    panels.map((panel) => {
      const place = el("div", { class: "chart", role: "img", "aria-label": told(panel) });
      place.style.height = `${height(panel)}px`;
      new Chart(place, (element) => drawPanel(element, panel));
      return el("figure", {}, panel.title ? el("figcaption", {}, visible(panel.title)) : null, place);
    }),
  );
  return el("div", { class: "charts" }, names.length > 1 ? seriesKey(names) : null, together);
}

function told(panel) {
  const series = panel.series.map((s) => s.name).join(", ");
  return visible(`Chart: ${panel.title || panel.axis}, of ${series}, for ${panel.rows.join(", ")}; the table below has the figures`);
}

function height(panel) {
  if (panel.positions) return 210;
  const many = panel.series.length;
  return Math.max(120, 56 + panel.rows.length * Math.max(ROW_HEIGHT, 10 + many * 13));
}

function drawPanel(element, panel) {
  const layout = baseLayout();
  const traces = panel.positions ? lines(panel, layout) : dots(panel, layout);
  if (panel.reference !== null) {
    const line = { type: "line", line: { color: colour("soft"), width: 1, dash: "dot" } };
    const place = { x0: panel.reference, x1: panel.reference, y0: 0, y1: 1, yref: "paper" };
    layout.shapes = [...(layout.shapes ?? []), { ...line, ...place }];
  }
  layout.showlegend = false;
  const config = { displayModeBar: false, responsive: true, showTips: false };
  window.Plotly.react(element, traces, layout, config);
}

function errors(figures) {
  const has = figures.some((figure) => figure && figure.low !== null);
  if (!has) return { visible: false };
  return {
    type: "data",
    symmetric: false,
    array: figures.map((f) => (f && f.high !== null ? f.high - f.value : 0)),
    arrayminus: figures.map((f) => (f && f.low !== null ? f.value - f.low : 0)),
    thickness: 1.4,
    width: 0,
  };
}

function dots(panel, layout) {
  const many = panel.series.length;
  const spread = many > 1 ? 0.66 : 0;
  const names = panel.rows.map((row) => visible(row));
  layout.margin = { l: 8, r: 12, t: 6, b: 40 };
  layout.yaxis = {
    ...layout.yaxis,
    automargin: true,
    range: [names.length - 0.5, -0.5],
    tickvals: names.map((_, i) => i),
    ticktext: names.map(plainText),
    tickfont: { size: 12, color: colour("ink") },
    showgrid: false,
    fixedrange: true,
  };
  layout.xaxis = { ...layout.xaxis, fixedrange: true, nticks: 6 };
  layout.xaxis.title = { ...layout.xaxis.title, text: panel.axis };
  if (panel.reference !== null) layout.xaxis.rangemode = "tozero";
  if (many > 1) {
    layout.shapes = names.slice(1).map((_, k) => ({
      type: "line",
      layer: "below",
      line: { color: colour("line"), width: 1 },
      xref: "paper",
      x0: 0,
      x1: 1,
      y0: k + 0.5,
      y1: k + 0.5,
    }));
  }
  return panel.series.map((series, i) => {
    const single = many === 1 && names.length > 1;
    const paint = single ? names.map((_, k) => paintOf(k)) : paintOf(i);
    const shift = many > 1 ? spread * (i / (many - 1) - 0.5) : 0;
    const bars = errors(series.figures);
    const sameRows = panel.reference !== null && single;
    const shown = sameRows ? paintOf(0) : paint;
    return {
      type: "scatter",
      mode: "markers",
      name: plainText(series.name),
      x: series.figures.map((f) => (f ? f.value : null)),
      y: names.map((_, k) => k + shift),
      error_x: { ...bars, color: Array.isArray(shown) ? colour("soft") : shown },
      marker: { color: shown, symbol: SYMBOLS[i % SYMBOLS.length], size: i === 0 ? 9 : 7.5 },
      text: names.map((name, k) => plainText(`${name}: ${interval(series.figures[k])}`)),
      hovertemplate: `%{text}<extra>${many > 1 ? plainText(series.name) : ""}</extra>`,
    };
  });
}

function lines(panel, layout) {
  layout.margin = { l: 48, r: 12, t: 6, b: 40 };
  layout.xaxis = {
    ...layout.xaxis,
    tickvals: panel.positions,
    ticktext: panel.rows,
    fixedrange: true,
    type: !panel.linear && panel.positions.every((x) => x > 0) ? "log" : "linear",
  };
  layout.xaxis.title = { ...layout.xaxis.title, text: panel.axis };
  layout.yaxis = { ...layout.yaxis, fixedrange: true, nticks: 5 };
  return panel.series.map((series, i) => ({
    type: "scatter",
    mode: "lines+markers",
    name: plainText(series.name),
    x: panel.positions,
    y: series.figures.map((f) => (f ? f.value : null)),
    error_y: { ...errors(series.figures), color: paintOf(i) },
    line: { color: paintOf(i), width: 1.5 },
    marker: { color: paintOf(i), size: 7 },
    text: panel.rows.map((row, k) => plainText(`${panel.axis} ${row}: ${interval(series.figures[k])}`)),
    hovertemplate: `%{text}<extra>${panel.series.length > 1 ? plainText(series.name) : ""}</extra>`,
  }));
}

/** Text for plotly, which reads a little HTML: without angle brackets there is none to read. */
function plainText(text) {
  return visible(text).replaceAll("<", "\u2039").replaceAll(">", "\u203a").replaceAll("&", "\uff06");
}
