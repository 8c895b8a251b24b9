// Parts that pages of all kinds have: charts with their figures, folded tables, facts.

function sectionPart(section) {
  return el(
    "section",
    { id: section.key },
    el("h2", {}, visible(section.title)),
    el("p", { class: "lede" }, visible(section.note)),
    section.panels.length > 0 ? panelCharts(section.panels) : null,
    section.panels.length > 0 && !section.unfolded
      ? el("details", { class: "figures" }, el("summary", {}, "The figures"), smallTable(section.table, visible(section.title)))
      : smallTable(section.table, visible(section.title)),
  );
}

/** A table that is opened by whoever wants it. */
function foldedTable({ name, title, note, table }) {
  const published = table.published.filter(Boolean).length;
  const size = `${whole(table.rows.length)} ${table.rows.length === 1 ? "row" : "rows"}${published > 0 ? `, ${whole(published)} of them published` : ""}`;
  return el(
    "details",
    { id: `table-${visible(name)}`, class: "folded" },
    el("summary", {}, el("h3", {}, visible(title)), " ", el("span", { class: "soft" }, size)),
    el("p", { class: "lede" }, visible(note)),
    smallTable(table, visible(title)),
  );
}

/** What was measured, and on what; facts are {title, items}. */
function provenancePart(facts) {
  return el(
    "section",
    { id: "provenance" },
    el(
      "details",
      {},
      el("summary", {}, el("h2", {}, "What was measured, and on what")),
      el(
        "div",
        { class: "facts" },
        facts
          .filter((group) => group.items.length > 0)
          .map((group) =>
            el(
              "div",
              {},
              el("h3", {}, group.title),
              el("dl", {}, group.items.map(([what, value]) => [el("dt", {}, visible(what)), el("dd", {}, bdi(value))])),
            ),
          ),
      ),
    ),
  );
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
