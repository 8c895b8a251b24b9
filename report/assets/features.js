// The features of a run: scatter, table, and what is said of one of them.

const PRINTED = 40;
const RESPONSE = {
  raised: "Through the layers above it, a push raises ",
  lowered: "and lowers ",
};
let names = {};
let meanings = {};

/** A column of the table of features, for people. */
function columnTitle(name) {
  const [, kind, target] = name.match(/^(predicted|measured)_(.*)$/) ?? [null, null, name];
  const title = names[target] ?? target;
  return kind ? `${title}, ${kind}` : title;
}

/** The interval of a predicted score as a small picture, on the scale of the whole column. */
function glyph(low, value, high, range) {
  const place = (x) => `${Math.max(0, Math.min(100, (100 * (x - range[0])) / (range[1] - range[0])))}%`;
  const parts = [el("i", { class: "zero", style: `left:${place(0)}` })];
  if (!Number.isNaN(low)) {
    parts.push(el("i", { class: "bar-line", style: `left:${place(low)};right:calc(100% - ${place(high)})` }));
  }
  parts.push(el("i", { class: "dot", style: `left:${place(value)}` }));
  return el("span", { class: "glyph", "aria-hidden": "true" }, parts);
}

function scoreRange(features) {
  let [low, high] = [0, 0];
  for (const name of ["predicted_clean_score_low", "predicted_clean_score", "predicted_clean_score_high"]) {
    const values = features.numbers[name] ?? [];
    for (let row = 0; row < values.length; row += 1) {
      if (!features.eligible[row]) continue;
      const value = values[row];
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low === high ? [low - 1, high + 1] : [low, high];
}

function gridColumns(story, features, selection) {
  const number = (name) => (row) => features.number(name, row);
  const range = scoreRange(features);
  const ranked = features.has("predicted_clean_score");
  const isMeasured = story.counts.ranked_by === "measurement";
  const score = (row) => {
    const [low, value, high] = ["_low", "", "_high"].map((end) => features.number(`predicted_clean_score${end}`, row));
    const ends = Number.isNaN(low) ? "" : ` [${signed(low, 1)}, ${signed(high, 1)}]`;
    return [glyph(low, value, high, range), el("span", {}, el("b", {}, signed(value, 2)), el("span", { class: "soft ends" }, ends))];
  };
  const numeric = (name, title, kind, decimals) => ({
    key: name,
    title,
    hint: meanings[name.replace(/^(predicted|measured)_/, "")],
    kind: `number ${kind}`,
    sort: number(name),
    descends: true,
    cell: (row) => fixed(features.number(name, row), decimals),
  });
  const measured = (name) => features.has(`measured_${name}`);
  const tick = (row) =>
    el("input", { type: "checkbox", tabindex: "-1", checked: selection.has(row), "aria-label": `Choose feature ${features.index[row]}` });
  const first = (kind) => (row) => features.wordsOf(kind, row)[0] ?? "";
  const columns = [
    { key: "tick", title: el("span", { class: "unseen" }, "Chosen"), kind: "tick", cell: tick },
    features.rank && { key: "rank", title: "Rank", kind: "number rank", sort: (row) => features.rank[row], cell: (row) => whole(features.rank[row]) },
    {
      key: "feature",
      title: "Feature",
      kind: "number name",
      sort: (row) => features.index[row],
      cell: (row) => [features.allowed[row] ? el("span", { class: "dotmark", title: "on the run's allowlist" }, "\u25cf") : null, String(features.index[row])],
    },
    ranked && {
      key: "predicted_clean_score",
      title: `${isMeasured ? "Measured" : "Predicted"} clean score${features.has("predicted_clean_score_low") ? ", 90 %" : ""}`,
      hint: meanings.clean_score,
      kind: "score",
      sort: number("predicted_clean_score"),
      descends: true,
      cell: score,
    },
    measured("clean_score") && !isMeasured && {
      ...numeric("measured_clean_score", "Measured", "wide", 2),
      cell: (row) => signed(features.number("measured_clean_score", row), 2),
    },
    ranked && numeric("predicted_stability_abs", "Stability", "wide", 2),
    ranked && numeric(`predicted_${features.collateral}`, COLLATERAL[features.collateral], "wide", 2),
    features.has("both_axes") && {
      ...numeric("both_axes", "Both axes", "wide", 2),
      cell: (row) => {
        const value = features.number("both_axes", row);
        const alone = features.wordsOf("alone", row)[0];
        const mark = alone ? el("span", { class: "soft", title: `clean by ${alone} alone` }, ` ${alone} alone`) : null;
        return Number.isNaN(value) ? fixed(value, 2) : [percent(value), mark];
      },
    },
    !ranked && numeric("crowding_max_abs_cos", "Nearest decoder", "wide", 2),
    !ranked && numeric("direct_logit_l2", "Logit footprint", "wide", 1),
    { ...numeric("final_act_freq", "Fires in", "wide", 4), cell: (row) => percent(features.number("final_act_freq", row)) },
    features.descriptions && {
      key: "description",
      title: "Description",
      kind: "text description",
      sort: (row) => features.description(row),
      cell: (row) => bdi(features.description(row)),
    },
    features.words.peaks && {
      key: "peaks",
      title: "Fires at",
      hint: "the tokens at which it is most active most often",
      kind: "text tokens fires wide",
      sort: first("peaks"),
      cell: (row) => features.wordsOf("peaks", row).slice(0, 4).map(token),
    },
    {
      key: "tokens",
      title: "Promotes",
      hint: "the tokens that the decoder direction raises most",
      kind: features.descriptions ? "text tokens wide" : "text tokens",
      sort: first("tokens"),
      cell: (row) => features.wordsOf("tokens", row).slice(0, 6).map(token),
    },
    features.words.reasons && !features.words.peaks && { // else there is no room; the details have them
      key: "reasons",
      title: "Why",
      hint: "the statistics that move the prediction most",
      kind: "text why wide",
      sort: first("reasons"),
      cell: (row) => features.wordsOf("reasons", row).map((reason) => [bdi(inShort(reason)), " "]),
    },
  ];
  return columns.filter(Boolean);
}

/** A reason without its figures: + what makes a feature cleaner, - what makes it messier. */
function inShort(reason) {
  const [, opinion, what] = reason.match(/^(cleaner|messier): (.*?)(: [^:]*)?$/) ?? [null, null, reason];
  return `${opinion === "cleaner" ? "+" : opinion === "messier" ? MINUS : ""}\u00a0${what}`;
}

const BEFORE = 30; // tokens that are shown before the marked one
const AFTER = 12;

/** Contexts in which a feature fires, the token marked at which it does so most. */
function exampleRows(examples, row) {
  if (!examples) return null;
  const { words, codes, width } = examples.contexts;
  const rows = examples.examples.flatMap(({ kind, context, position, activation }) => {
    if (context[row] < 0) return [];
    const at = position[row];
    const start = context[row] * width;
    const pieces = (from, to) =>
      codes
        .slice(start + Math.max(0, from), start + Math.min(width, to))
        .filter((code) => code >= 0)
        .map((code) => visible(words[code]))
        .join("");
    const value = activation.values[row] / 10 ** activation.decimals;
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, kind),
      el("td", { class: "number" }, short(value)),
      el(
        "td",
        { class: "context" },
        el("bdi", {}, at - BEFORE > 1 ? "\u2026" : "", pieces(Math.max(1, at - BEFORE), at), el("mark", {}, pieces(at, at + 1)), pieces(at + 1, at + 1 + AFTER), at + 1 + AFTER < width ? "\u2026" : ""),
      ),
    );
  });
  if (rows.length === 0) return null;
  return el(
    "table",
    { class: "small examples" },
    el("thead", {}, el("tr", {}, ["example", "activation", "where it fires"].map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, rows),
  );
}

/** All that is known of one feature. */
function featureDetails(story, features, row) {
  const index = features.index[row];
  const targets = features.targets;
  const kinds = ["predicted", "measured"].filter((kind) => targets.some((t) => features.has(`${kind}_${t}`)));
  const values = targets.filter((t) => kinds.some((kind) => !Number.isNaN(features.number(`${kind}_${t}`, row))));
  const table =
    values.length > 0 &&
    el(
      "table",
      { class: "small" },
      el("thead", {}, el("tr", {}, el("td"), kinds.map((kind) => el("th", { scope: "col" }, kind)))),
      el(
        "tbody",
        {},
        values.map((target) =>
          el(
            "tr",
            {},
            el("th", { scope: "row", title: meanings[target] }, names[target]),
            kinds.map((kind) => el("td", { class: "number" }, short(features.number(`${kind}_${target}`, row)))),
          ),
        ),
      ),
    );
  const facts = [
    `fires in ${percent(features.number("final_act_freq", row))} of the contexts`,
    features.eligible[row] ? "eligible" : "not eligible: fires too rarely or too often to be labelled",
    features.allowed[row] ? "on the run's allowlist" : null,
    ...["crowding_max_abs_cos", "encoder_decoder_cos", "direct_logit_l2"]
      .filter((name) => features.has(name))
      .map((name) => `${names[name].charAt(0).toLowerCase()}${names[name].slice(1)} ${short(features.number(name, row))}`),
  ].filter(Boolean);
  const reasons = features.wordsOf("reasons", row);
  const link = story.neuronpedia
    ? el("a", { href: `${story.neuronpedia}${index}`, rel: "noopener noreferrer", target: "_blank" }, "Neuronpedia \u2197")
    : null;
  return el(
    "div",
    { class: "feature" },
    el(
      "div",
      {},
      el("h4", {}, `Feature ${index} `, link),
      features.description(row) ? el("p", {}, bdi(features.description(row))) : null,
      features.wordsOf("peaks", row).length > 0
        ? el("p", { class: "tokens" }, el("span", { class: "soft" }, "Fires at "), features.wordsOf("peaks", row).map(token))
        : null,
      el("p", { class: "tokens" }, el("span", { class: "soft" }, "Promotes "), features.wordsOf("tokens", row).map(token)),
      ...Object.entries(RESPONSE).map(([kind, told]) => {
        const words = features.wordsOf(kind, row);
        return words.length > 0 ? el("p", { class: "tokens" }, el("span", { class: "soft" }, told), words.map(token)) : null;
      }),
      el("p", { class: "soft" }, facts.join(" \u00b7 ")),
      reasons.length > 0 ? el("ul", { class: "reasons" }, reasons.map((reason) => el("li", {}, bdi(reason)))) : null,
    ),
    table || null,
    exampleRows(story.examples, row),
  );
}

/** The part of the page that is about features. */
function featuresPart(story) {
  const features = new Features(story.features);
  const selection = new Selection(story, features);
  const view = new View(features, selection);
  const columns = gridColumns(story, features, selection);
  for (const column of columns) if (column.sort) view.keys[column.key] = column.sort;
  const grid = new Grid(columns, features, view, selection, (row) => featureDetails(story, features, row));
  const printed = el("div", { class: "printed" });
  const show = (row) => grid.show(row);
  const scatter = axisChoices(features).length > 1 ? new Scatter(features, selection, view, show) : null;
  const ranked = features.has("predicted_clean_score");
  const parts = [
    el("h2", {}, ranked ? "Features, cleanest first" : "Features"),
    el("p", { class: "lede" }, ranked ? LEDES[story.counts.ranked_by] : features.has("measured_clean_score") ? MEASURED : UNRANKED),
    scatter?.element ?? null,
    filterBar(view),
    selectionBar(selection, view),
    grid.element,
    el("p", { class: "soft help" }, "Enter or a click opens a feature, Space chooses it, arrow keys move; headings sort. \u25cf on the run\u2019s allowlist."),
    printed,
  ];
  beforePrinting.push(() => printed.replaceChildren(...printedRows(columns, view)));
  queueMicrotask(() => view.update());
  return el("section", { id: "features", class: "wide-section" }, parts);
}

const COLLATERAL = {
  collateral_per_effect: "Collateral / effect",
  collateral_relative_per_effect: "Collateral / effect",
  collateral_relative_mass: "Collateral",
};
const RANKED =
  "A score is in standard deviations, higher is cleaner; a steered feature\u2019s prediction comes from a " +
  "model that has not seen its label, so that predicted and measured may be compared. Intervals hold for eligible features.";
const FORECAST =
  "A score is in standard deviations of the eligible features, higher is cleaner: a forecast by linear response, " +
  "without an interval. No feature was labelled, so that nothing measured stands beside it.";
const EVERY =
  "A score is in standard deviations of the eligible features, higher is cleaner. Every feature was steered, so that " +
  "nothing is predicted: scores are measured, and intervals are of the measurement.";
const LEDES = { labels: RANKED, "linear response": FORECAST, measurement: EVERY };
const MEASURED = "Statistics, and what steering did where it was measured: nothing predicts yet how the other features steer.";
const UNRANKED = "Statistics alone: nothing predicts yet how these features steer.";

function printedRows(columns, view) {
  const shown = columns.filter((column) => column.key !== "tick");
  const rows = view.order.slice(0, PRINTED);
  return [
    el("p", { class: "soft" }, `The first ${rows.length} of ${whole(view.order.length)} features shown.`),
    el(
      "table",
      { class: "small" },
      el("thead", {}, el("tr", {}, shown.map((column) => el("th", {}, column.title)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, shown.map((column) => el("td", { class: column.kind }, column.cell(row)))))),
    ),
  ];
}
