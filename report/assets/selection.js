// The features that are chosen on the page, how they were, and the allowlist made of them.

class Selection {
  constructor(story, features) {
    this.story = story;
    this.features = features;
    this.chosen = new Uint8Array(features.n);
    this.how = [];
    this.listeners = [];
  }

  get size() {
    return this.chosen.reduce((sum, flag) => sum + flag, 0);
  }

  has(row) {
    return this.chosen[row] === 1;
  }

  toggle(row) {
    this.chosen[row] = 1 - this.chosen[row];
    this.say("ticked rows");
  }

  /** Choose these rows too. */
  add(rows, how) {
    for (const row of rows) this.chosen[row] = 1;
    this.say(how);
  }

  /** Choose these rows no longer. */
  remove(rows, how) {
    for (const row of rows) this.chosen[row] = 0;
    this.say(`without ${how}`);
  }

  clear() {
    this.chosen.fill(0);
    this.how = [];
    this.changed();
  }

  say(how) {
    if (this.how.at(-1) !== how) this.how.push(how);
    this.changed();
  }

  changed() {
    if (this.size === 0) this.how = [];
    for (const listener of this.listeners) listener();
  }

  rows() {
    return Array.from(this.chosen.keys()).filter((row) => this.chosen[row]);
  }

  /** The file that `cleansteer train --allowlist` takes. */
  allowlist() {
    const { criterion, trust, ranked_by, ...source } = this.story.allowlist;
    const features = this.rows().map((row) => this.features.index[row]);
    return {
      ...source,
      features: features.sort((a, b) => a - b),
      criterion: { ...criterion, how: this.how },
      ranked_by,
      trust,
      created: `${new Date().toISOString().slice(0, 19)}+00:00`,
    };
  }

  download() {
    const text = `${JSON.stringify(this.allowlist(), null, 2)}\n`;
    const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    const link = el("a", { href: address, download: "allowlist.json" });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }
}

/** The bar that says what is chosen and hands it out. */
function selectionBar(selection, view) {
  const count = el("strong", { "aria-live": "polite" });
  const note = el("span", { class: "soft" });
  const none = selection.story.allowlist === null;
  const download = el(
    "button",
    { type: "button", class: "primary", id: "download", click: () => selection.download() },
    "Download allowlist.json",
  );
  const all = el(
    "button",
    { type: "button", class: "quiet", id: "choose-all", click: () => selection.add(view.order, view.told()) },
  );
  view.listeners.push(() => {
    all.textContent = `Choose all ${whole(view.order.length)} shown`;
    all.disabled = view.order.length === 0;
  });
  const clear = el("button", { type: "button", class: "quiet", click: () => selection.clear() }, "Clear");
  const bar = el("div", { class: "selection" }, count, note, el("span", { class: "push" }), all, clear, download);
  const update = () => {
    const size = selection.size;
    const outside = selection.rows().filter((row) => !selection.features.eligible[row]).length;
    count.textContent = `${whole(size)} chosen`;
    note.textContent = none
      ? "An allowlist carries a verdict: screen this run first."
      : size === 0
        ? "Draw a lasso or a box in the chart, tick rows, or take all that are shown."
        : outside > 0
          ? `${whole(outside)} of them fire too rarely or too often to be judged (not eligible).`
          : "";
    download.disabled = none || size === 0;
    clear.disabled = size === 0;
    bar.classList.toggle("active", size > 0);
  };
  selection.listeners.push(update);
  update();
  return bar;
}
