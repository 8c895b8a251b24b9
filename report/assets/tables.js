// Small tables: figures with their intervals, in rows.

const VERDICT_CLASSES = { trusted: "good", partly: "fair", "not trusted": "bad", yes: "good", no: "bad" };

const LONG = 50;

/** A table of the records' kind PageTable. */
function smallTable(table, caption) {
  const published = table.published.some(Boolean);
  const head = el("tr", {}, table.columns.map((c) => el("th", { scope: "col" }, visible(c))));
  if (published) head.append(el("th", { scope: "col" }, "Whose"));
  const body = table.rows.map((cells, i) => {
    const theirs = table.published[i] === true;
    const row = el("tr", { class: theirs ? "published" : null }, cells.map(smallCell));
    if (published) row.append(el("td", {}, el("span", { class: "tag" }, theirs ? "published, not ours" : "ours")));
    return row;
  });
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      { class: "small" },
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, head),
      el("tbody", {}, body),
    ),
  );
}

function smallCell(cell, column) {
  const name = column === 0 ? "th" : "td";
  const attributes = column === 0 ? { scope: "row" } : {};
  if (cell === null) return el(name, attributes, "\u2013");
  if (typeof cell === "number") return el(name, { ...attributes, class: "number" }, short(cell));
  if (typeof cell === "object") return el(name, { ...attributes, class: "number" }, interval(cell));
  if (typeof cell === "boolean") return el(name, attributes, cell ? "yes" : "no");
  if (cell in VERDICT_CLASSES) {
    return el(name, attributes, el("span", { class: `mark ${VERDICT_CLASSES[cell]}` }, cell));
  }
  return el(name, { ...attributes, class: cell.length > LONG ? "long" : null }, bdi(cell));
}
