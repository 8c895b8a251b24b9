// The story of one run, from the verdict down.

const OVERALL = {
  trusted: ["good", "This ranking can be trusted"],
  partly: ["fair", "This ranking can be trusted in part"],
  "not trusted": ["bad", "This ranking is not to be trusted"],
};

function storyParts(story) {
  return [
    headline(story),
    ...story.missing.map((missing) =>
      el("div", { class: "notice" }, el("p", {}, visible(missing.what)), el("pre", {}, visible(missing.command))),
    ),
    story.verdict ? verdictCard(story.verdict) : null,
    story.warnings.length > 0
      ? el("div", { class: "notice" }, story.warnings.map((warning) => el("p", {}, `Warning: ${visible(warning)}`)))
      : null,
    provenancePart(story.provenance),
    story.features ? featuresPart(story) : null,
    ...story.sections.map(sectionPart),
    story.controls.length > 0
      ? el(
          "section",
          {},
          el("h2", {}, "Other controls"),
          el("ul", { class: "prose" }, story.controls.map((text) => el("li", {}, visible(text)))),
        )
      : null,
  ].filter(Boolean);
}

function headline(story) {
  const { features, eligible, labelled, ranked_by } = story.counts;
  const parts = [
    features > 0 ? `${whole(features)} features` : null,
    features > 0 ? `${whole(eligible)} eligible` : null,
    ranked_by === "linear response" ? "none labelled: ranked by linear response" : `${whole(labelled)} steered${ranked_by === "measurement" ? ": the ranking is measured" : ""}`,
  ].filter(Boolean);
  return el(
    "div",
    { class: "headline" },
    el("h1", {}, bdi(story.title)),
    el(
      "p",
      { class: "lede" },
      `${parts.join(", ")}. `,
      "Dictionary ",
      bdi(story.subject.sae),
      story.subject.hook ? [" at ", bdi(story.subject.hook)] : null,
      " of model ",
      bdi(story.subject.model),
      ".",
    ),
  );
}

function verdictCard(verdict) {
  const [kind, title] = OVERALL[verdict.overall] ?? ["fair", verdict.overall];
  const trusted = verdict.axes.filter((axis) => axis.verdict === "trusted").map((axis) => axis.axis);
  const told = verdict.overall === "partly" ? `${title}: for ${trusted.join(", ")}` : title;
  return el(
    "section",
    { class: `verdict ${kind}`, id: "verdict" },
    el("h2", {}, visible(told)),
    el("div", { class: "axes" }, verdict.axes.map((axis) => axisVerdict(axis, verdict.rules))),
    el(
      "p",
      { class: "soft" },
      visible(verdict.told),
    ),
  );
}

function axisVerdict(axis, rules) {
  const good = axis.verdict === "trusted";
  const label = visible(axis.label.toLowerCase());
  const judged = label === axis.axis ? null : label;
  const fallen = [...axis.reasons, ...axis.caveats].map((reason) => el("p", { class: "reason" }, visible(reason)));
  return el(
    "div",
    { class: "axis" },
    el("h3", {}, visible(capital(axis.axis)), " ", el("span", { class: `mark ${good ? "good" : "bad"}` }, visible(axis.verdict)), judged ? el("span", { class: "judged" }, ` by ${judged}`) : null),
    el(
      "dl",
      {},
      axis.evidence.map((found, i) => [
        el("dt", {}, el("span", { class: found.holds ? "tick yes" : "tick no", "aria-hidden": "true" }, found.holds ? "\u2713" : "\u2717"), el("span", { class: "unseen" }, found.holds ? "holds: " : "fails: "), visible(rules[i])),
        el("dd", {}, el("span", { class: "figure" }, interval(found.figure)), el("span", { class: "soft" }, ` ${visible(found.what)}`)),
      ]),
    ),
    fallen,
  );
}

/** Several runs side by side. */
function comparisonParts(comparison, leftOut, open) {
  const verdicts = smallTable(comparison.verdicts, "Verdicts of all settings");
  const names = [...verdicts.querySelectorAll("tbody th")];
  for (const [number, name] of names.slice(0, names.length - leftOut.length).entries()) {
    name.replaceChildren(el("button", { type: "button", class: "link", click: () => open(number) }, ...name.childNodes));
  }
  return [
    el(
      "section",
      { id: "comparison", class: "headline" },
      el("h1", {}, "Settings side by side"),
      el("p", { class: "lede" }, overallTold(comparison.verdicts), " A name leads to the setting\u2019s own report, below the comparison."),
      verdicts,
      leftOut.length > 0
        ? el("p", { class: "soft" }, "Too large to be browsed here beside the others, and only compared: ", leftOut.map((name) => [bdi(name), " "]))
        : null,
    ),
    ...comparison.sections.map(sectionPart),
    comparison.tables.length > 0
      ? el("section", { id: "tables" }, el("h2", {}, "All figures, beside published ones"), el("p", { class: "lede" }, TABLES), comparison.tables.map(foldedTable))
      : null,
  ].filter(Boolean);
}

const TABLES =
  "The tables of cleansteer benchmark families. Rows marked as published were measured by others, on other models: " +
  "they are points of reference, and in no mean.";

/** How many settings have a ranking of which verdict. */
function overallTold(verdicts) {
  const counts = new Map();
  for (const row of verdicts.rows) counts.set(row[1], (counts.get(row[1]) ?? 0) + 1);
  const parts = Array.from(counts, ([verdict, count]) => `${count} ${verdict === "partly" ? "trusted in part" : visible(verdict)}`);
  return `Of ${verdicts.rows.length} settings: ${parts.join(", ")}.`;
}
