// Which features are shown.

class View extends Order {
  constructor(features, selection) {
    super();
    Object.assign(this, { features, selection });
    this.wanted = { eligible: features.eligible.some(Boolean), measured: false, allowed: false, chosen: false, least: null, text: "" };
    this.shown = new Uint8Array(features.n);
    selection.listeners.push(() => {
      if (this.wanted.chosen) this.update();
    });
  }

  filter(changes) {
    Object.assign(this.wanted, changes);
    this.update();
  }

  update() {
    const { features, wanted } = this;
    const matches = this.matcher(wanted.text.trim().toLowerCase());
    const scores = features.numbers.predicted_clean_score;
    const rows = [];
    this.shown.fill(0);
    for (let row = 0; row < features.n; row += 1) {
      if (wanted.eligible && !features.eligible[row]) continue;
      if (wanted.measured && !features.measured(row)) continue;
      if (wanted.allowed && !features.allowed[row]) continue;
      if (wanted.chosen && !this.selection.has(row)) continue;
      if (wanted.least !== null && scores && !(scores[row] >= wanted.least)) continue;
      if (!matches(row)) continue;
      this.shown[row] = 1;
      rows.push(row);
    }
    this.order = this.sorted(rows);
    for (const listener of this.listeners) listener();
  }

  /** Whether a row's index is the text, or one of the tokens that it fires at or promotes, or its
   * description holds it. */
  matcher(text) {
    if (text === "") return () => true;
    const { features } = this;
    const columns = ["tokens", "peaks"].map((kind) => features.words[kind]).filter(Boolean);
    const hits = columns.map(({ words }) => words.map((word) => word.toLowerCase().includes(text)));
    return (row) => {
      if (String(features.index[row]) === text) return true;
      for (const [at, { width, codes }] of columns.entries()) {
        for (let i = row * width; i < (row + 1) * width; i += 1) {
          if (codes[i] >= 0 && hits[at][codes[i]]) return true;
        }
      }
      return features.description(row).toLowerCase().includes(text);
    };
  }

  /** The filter in words. */
  told() {
    const { wanted } = this;
    const parts = [
      wanted.eligible && "eligible",
      wanted.measured && "measured",
      wanted.allowed && "on the run's allowlist",
      wanted.chosen && "already chosen",
      wanted.least !== null && `predicted clean score of ${wanted.least} or more`,
      wanted.text.trim() !== "" && `search ${JSON.stringify(wanted.text.trim())}`,
    ].filter(Boolean);
    return parts.length === 0 ? "no filter" : `filter: ${parts.join(", ")}`;
  }
}

/** The controls of a view. */
function filterBar(view) {
  const { features } = view;
  const box = (key, title, off) => {
    const change = (event) => view.filter({ [key]: event.target.checked });
    const input = el("input", { type: "checkbox", id: `filter-${key}`, checked: view.wanted[key], change });
    input.disabled = off === true;
    return el("label", { class: "check" }, input, title);
  };
  let waiting = null;
  const search = el("input", {
    type: "search",
    id: "search",
    placeholder: "index, token or description",
    input: (event) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => view.filter({ text: event.target.value }), 120);
    },
  });
  const least = el("input", {
    type: "number",
    id: "least",
    step: "0.1",
    input: (event) => {
      const value = event.target.valueAsNumber;
      view.filter({ least: Number.isNaN(value) ? null : value });
    },
  });
  least.disabled = !features.has("predicted_clean_score");
  const count = el("span", { class: "count", role: "status" });
  view.listeners.push(() => {
    count.textContent = `${whole(view.order.length)} of ${whole(features.n)} features`;
  });
  return el(
    "div",
    { class: "filters" },
    el("label", { class: "search" }, "Search ", search),
    el("label", {}, "Score at least ", least),
    box("eligible", "eligible", !features.eligible.some(Boolean)),
    box("measured", "measured", !features.has("measured_clean_score")),
    box("allowed", "on the allowlist", !features.allowed.some(Boolean)),
    box("chosen", "chosen"),
    el("span", { class: "push" }),
    count,
  );
}
