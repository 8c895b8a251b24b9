// The page of an audited adapter.

async function main() {
  const page = await unpackJson("about");
  document.title = `${visible(page.title)} \u2013 cleansteer audit`;
  document.querySelector(".brand span").textContent = "audit";
  document.getElementById("footer").append(el("p", {}, `Written by cleansteer on ${page.created.slice(0, 10)}.`));
  const parts = [
    el("div", { class: "headline" }, el("h1", {}, bdi(page.title)), el("p", { class: "lede" }, bdi(page.lede))),
    page.headline ? headlineCard(page.headline) : null,
    page.provenance.length > 0 ? provenancePart(page.provenance) : null,
    ...page.before.map(sectionPart),
    page.features.length > 0 ? auditedFeatures(page.features, page.order) : null,
    ...page.behind.map(sectionPart),
    ...page.drifted.map(driftedPart),
  ];
  document.getElementById("main").replaceChildren(...parts.filter(Boolean));
  requestAnimationFrame(() => setTimeout(() => (window.ready ??= performance.now())));
  drawInIdleTime();
}

function headlineCard({ state, title, facts }) {
  return el(
    "section",
    { class: `verdict ${state}`, id: "verdict" },
    el("h2", {}, visible(title)),
    el("div", { class: "axis" }, el("dl", {}, facts.map(([what, told]) => [el("dt", { class: "soft" }, visible(what)), el("dd", {}, visible(told))]))),
  );
}

/** Rows of features, all shown, in an order of one's own. */
class Rows extends Order {
  constructor(n) {
    super();
    this.n = n;
  }

  update() {
    this.order = this.sorted(Array.from({ length: this.n }, (_, row) => row));
    for (const listener of this.listeners) listener();
  }
}

const SHOWN = 6; // drifted features of a place, those behind them folded
const HINTS = {
  size: "the largest change of a parameter since training began",
  residual: "the norm of what the edit adds to the residual stream, mean over tokens",
  edited: "share of tokens at which the edit changes something",
  attribution: "what the edit adds to the task\u2019s loss, to first order; negative where it helps",
  switched_off: "the same, measured: the loss with all edits, less that with this one switched off",
  form: "share of its activation at layout, punctuation and function words",
  overlap: "share of its strongest contexts on the reference that are the same before and after",
  predicted_clean_score: "by the run\u2019s ranking; higher steers more cleanly",
  measured_clean_score: "where the run steered it",
  recommended_coefficient: "the largest push whose KL stays within the run\u2019s budget",
};

function auditedFeatures(features, order) {
  const has = (name) => features.some((each) => each[name] !== undefined);
  const numeric = (name, title, decimals, told = fixed) =>
    has(name) && {
      key: name,
      title,
      hint: HINTS[name],
      kind: "number wide",
      sort: (row) => features[row][name] ?? NaN,
      descends: true,
      cell: (row) => told(features[row][name], decimals),
    };
  const share = (name, title) => numeric(name, title, 0, rounded);
  const several = new Set(features.map((each) => each.hook)).size > 1;
  const parameters = [...new Set(features.flatMap((each) => Object.keys(each.parameters)))];
  const columns = [
    { key: "feature", title: "Feature", kind: "number name", sort: (row) => features[row].feature, cell: (row) => String(features[row].feature) },
    several && { key: "hook", title: "At", kind: "text why wide", sort: (row) => features[row].hook, cell: (row) => bdi(features[row].hook) },
    { key: "description", title: "Name", kind: "text description", sort: (row) => features[row].description ?? "", cell: (row) => nameOf(features[row]) },
    ...parameters.map((name) => ({
      key: `parameter ${name}`,
      title: visible(name),
      hint: `what the component learnt of it: ${visible(name)}`,
      kind: "number wide",
      sort: (row) => features[row].parameters[name] ?? NaN,
      descends: true,
      cell: (row) => signed(features[row].parameters[name], 3),
    })),
    parameters.length === 1 ? null : numeric("size", "Size", 3),
    numeric("residual", "In the stream", 4),
    has("edited") && { ...share("edited", "Edited"), cell: (row) => (features[row].silent ? "silent" : percent(features[row].edited)) },
    numeric("attribution", "Loss, forecast", 5, signed),
    numeric("switched_off", "Loss, measured", 5, signed),
    share("form", "Form"),
    share("overlap", "Contexts kept"),
    numeric("predicted_clean_score", "Clean score", 2, signed),
    numeric("measured_clean_score", "Clean, measured", 2, signed),
    numeric("recommended_coefficient", "Largest push", 2),
  ].filter(Boolean);
  const view = new Rows(features.length);
  for (const column of columns) view.keys[column.key] = column.sort;
  const eligible = features.map((each) => !each.silent);
  const grid = new Grid(columns, { eligible }, view, null, (row) => auditedDetails(features[row]));
  if (features.length < 12) grid.element.style.cssText = "height: auto; max-height: 78vh";
  const printed = el("div", { class: "printed" });
  beforePrinting.push(() => printed.replaceChildren(printedRows(columns, view)));
  queueMicrotask(() => view.update());
  const scatter = has("attribution") && has("residual") ? effectScatter(features, (row) => grid.show(row)) : null;
  return el(
    "section",
    { id: "features", class: "wide-section" },
    el("h2", {}, "Changed features"),
    el("p", { class: "lede" }, `The first ${whole(features.length)} by ${visible(order)}. Names are descriptions where there are any, otherwise the tokens at which a feature is most active.`),
    scatter,
    grid.element,
    el("p", { class: "soft help" }, "Enter or a click opens a feature, arrow keys move; headings sort."),
    printed,
  );
}

/** A share in whole per cents. */
function rounded(value) {
  return value === undefined ? "\u2013" : `${fixed(100 * value, 0)}\u2009%`;
}

function printedRows(columns, view) {
  const head = el("thead", {}, el("tr", {}, columns.map((column) => el("th", {}, column.title))));
  const rows = view.order.map((row) => el("tr", {}, columns.map((column) => el("td", { class: column.kind }, column.cell(row)))));
  return el("table", { class: "small" }, head, el("tbody", {}, rows));
}

/** What a feature is called: its description, or the tokens that it promotes. */
function nameOf(feature) {
  if (feature.description) return bdi(feature.description);
  return (feature.promotes ?? []).slice(0, 4).map(token);
}

function auditedDetails(feature) {
  const tokens = (told, words) => (words?.length > 0 ? el("p", { class: "tokens" }, el("span", { class: "soft" }, told), words.map(token)) : null);
  const facts = [
    feature.fires === undefined ? null : `fires at ${percent(feature.fires)} of the tokens`,
    feature.latent === undefined ? null : `its activation changes by ${short(feature.latent)} in the mean`,
    feature.mean_before === undefined ? null : `mean on the reference ${short(feature.mean_before)} before, ${short(feature.mean_after)} after`,
    feature.silent ? "its edit changes nothing on the data" : null,
  ].filter(Boolean);
  return el(
    "div",
    { class: "feature" },
    el(
      "div",
      {},
      el("h4", {}, `Feature ${feature.feature} `, el("span", { class: "judged" }, bdi(feature.hook))),
      feature.description ? el("p", {}, bdi(feature.description)) : null,
      tokens("Promotes ", feature.promotes),
      tokens("Demotes ", feature.demotes),
      facts.length > 0 ? el("p", { class: "soft" }, facts.join(" \u00b7 ")) : null,
    ),
    contextRows(feature.strongest, feature.strongest_after),
  );
}

/** Where a feature is most active, before the edit and after it, the token marked. */
function contextRows(before, after) {
  const rows = [["before", before], ["after", after]].flatMap(([when, contexts]) =>
    (contexts ?? []).map((context) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, when),
        el("td", { class: "number" }, short(context.activation)),
        el("td", { class: "context" }, el("bdi", {}, visible(context.before), el("mark", {}, visible(context.token)), visible(context.after))),
      ),
    ),
  );
  if (rows.length === 0) return null;
  const titles = ["the edit", "activation", "where it is most active"];
  return el(
    "table",
    { class: "small examples" },
    el("thead", {}, el("tr", {}, titles.map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, rows),
  );
}

function driftedPart({ title, features }) {
  const parts = features.map((each) =>
    el(
      "details",
      { class: "folded" },
      el(
        "summary",
        {},
        el("h3", {}, String(each.feature), " ", bdi(each.description ?? "")),
        " ",
        el("span", { class: "soft" }, `keeps ${rounded(each.overlap)} of its contexts; mean ${short(each.before)} before, ${short(each.after)} after`),
      ),
      el("div", { class: "scroll" }, contextRows(each.strongest, each.strongest_after)),
    ),
  );
  const rest = parts.slice(SHOWN);
  return el(
    "section",
    { class: "drifted" },
    el("h2", {}, visible(title)),
    parts.slice(0, SHOWN),
    rest.length > 0 ? el("details", { class: "folded" }, el("summary", {}, `${whole(rest.length)} more`), rest) : null,
  );
}

/** What an edit adds to the stream, against what it does to the loss. */
function effectScatter(features, open) {
  const place = el("div", { class: "chart", role: "img", "aria-label": "Chart: what each edit adds to the residual stream against what it adds to the loss; the table has the figures" });
  place.style.height = "340px";
  new Chart(place, (element) => {
    const layout = baseLayout();
    const names = features.map((each) => plainText(`${each.feature} ${each.description ?? ""}`));
    layout.margin = { l: 64, r: 12, t: 6, b: 44 };
    layout.showlegend = false;
    layout.hovermode = "closest";
    layout.xaxis = { ...layout.xaxis, ...logTicks(features.map((each) => each.residual)), fixedrange: true, type: "log" };
    layout.xaxis.title = { ...layout.xaxis.title, text: "norm added to the stream, mean over tokens" };
    layout.yaxis = { ...layout.yaxis, fixedrange: true, zeroline: true, zerolinecolor: colour("soft"), nticks: 6 };
    layout.yaxis.title = { ...layout.yaxis.title, text: "added to the loss, forecast" };
    const trace = {
      type: "scatter",
      mode: "markers",
      x: features.map((each) => (each.residual > 0 ? each.residual : null)),
      y: features.map((each) => each.attribution ?? null),
      text: names,
      marker: { color: paintOf(0), size: 8, opacity: 0.75 },
      hovertemplate: "%{text}<br>%{y:+.5f} at %{x:.4f}<extra></extra>",
    };
    const config = { displayModeBar: false, responsive: true, showTips: false };
    window.Plotly.react(element, [trace], layout, config);
    element.removeAllListeners?.("plotly_click");
    element.on?.("plotly_click", (event) => open(event.points[0].pointIndex));
  });
  return el("div", { class: "charts" }, el("figure", {}, place));
}

/** Ticks at 1, 2 and 5 of every power of ten that values lie in. */
function logTicks(values) {
  const exponents = values.filter((value) => value > 0).map((value) => Math.floor(Math.log10(value)));
  const ticks = [];
  for (let power = Math.min(...exponents); power <= Math.max(...exponents); power += 1) {
    for (const digit of [1, 2, 5]) ticks.push(digit * 10 ** power);
  }
  return { tickvals: ticks, ticktext: ticks.map((tick) => String(Number(tick.toPrecision(1)))) };
}
