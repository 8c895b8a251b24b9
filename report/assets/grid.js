// The table of features: only the rows on screen are in the document. It is an ARIA grid: arrow keys
// move, Enter opens a row's details, Space chooses it; headings are buttons that sort.

const ROW = 36;
const OVERSCAN = 8;

class Grid {
  /** Columns are {key, title, hint, kind, sort, cell(row)}; `details(row)` is shown under an open row;
   * without a selection no row can be chosen. */
  constructor(columns, features, view, selection, details) {
    Object.assign(this, { columns, features, view, selection, details });
    this.active = { position: 0, column: 0 };
    this.open = -1;
    this.openHeight = 0;
    this.build();
    view.listeners.push(() => this.reordered());
    selection?.listeners.push(() => this.render());
  }

  build() {
    this.headings = this.columns.map((column) => {
      const attributes = { role: "columnheader", scope: "col", class: column.kind, title: column.hint };
      if (!column.sort) return el("th", attributes, column.title);
      const sort = () => this.view.sortBy(column.key, column.descends);
      const arrow = el("span", { class: "arrow", "aria-hidden": "true" });
      return el("th", attributes, el("button", { type: "button", click: sort }, column.title, arrow));
    });
    this.body = el("tbody", {
      click: (event) => this.clicked(event),
      change: (event) => this.ticked(event),
    });
    this.table = el(
      "table",
      {
        class: "features",
        role: "grid",
        "aria-label": "Features",
        "aria-colcount": this.columns.length,
        "aria-multiselectable": this.selection ? "true" : null,
      },
      el("colgroup", {}, this.columns.map((column) => el("col", { class: column.kind }))),
      el("thead", {}, el("tr", { role: "row", "aria-rowindex": 1 }, this.headings)),
      this.body,
    );
    this.element = el(
      "div",
      {
        class: "grid",
        tabindex: "-1",
        scroll: () => this.schedule(),
        keydown: (event) => this.pressed(event),
      },
      this.table,
    );
    this.across = this.columns.length;
    new ResizeObserver(() => {
      this.across = this.headings.filter((heading) => heading.offsetParent !== null).length;
      this.render();
    }).observe(this.element);
  }

  schedule() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.render();
    });
  }

  reordered() {
    this.open = -1;
    this.active.position = 0;
    this.element.scrollTop = 0;
    for (const [i, column] of this.columns.entries()) {
      if (!column.sort) continue;
      const { key, descending } = this.view.sorting;
      const way = key !== column.key ? "none" : descending ? "descending" : "ascending";
      this.headings[i].setAttribute("aria-sort", way);
    }
    this.render();
  }

  top(position) {
    return position * ROW + (this.open >= 0 && position > this.open ? this.openHeight : 0);
  }

  at(pixels) {
    if (this.open < 0 || pixels < (this.open + 1) * ROW) return Math.floor(pixels / ROW);
    return Math.max(this.open, Math.floor((pixels - this.openHeight) / ROW));
  }

  render() {
    const n = this.view.order.length;
    const held = this.element.contains(document.activeElement) && this.body.contains(document.activeElement);
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, this.at(scrollTop) - OVERSCAN);
    const last = Math.min(n - 1, this.at(scrollTop + clientHeight) + OVERSCAN);
    this.table.setAttribute("aria-rowcount", n + 1);
    const rows = [];
    for (let position = first; position <= last; position += 1) {
      rows.push(this.row(position));
      if (position === this.open) rows.push(this.opened(position));
    }
    const below = this.top(n) - this.top(last + 1);
    this.body.replaceChildren(this.spacer(this.top(first)), ...rows, this.spacer(below));
    if (n === 0) {
      const text = "No feature passes the filter.";
      this.body.replaceChildren(el("tr", {}, el("td", { class: "none", colspan: this.across }, text)));
    }
    const measured = this.body.querySelector(".details")?.getBoundingClientRect().height;
    if (measured && Math.abs(measured - this.openHeight) > 1) this.openHeight = measured;
    if (held) (this.activeCell() ?? this.element).focus({ preventScroll: true });
  }

  spacer(height) {
    return el("tr", { "aria-hidden": "true", class: "spacer" }, el("td", { colspan: this.across, style: `height:${Math.max(0, height)}px` }));
  }

  row(position) {
    const row = this.view.order[position];
    const chosen = this.selection?.has(row) ?? false;
    const classes = [this.features.eligible[row] ? "" : "off", chosen ? "chosen" : ""].join(" ");
    return el(
      "tr",
      {
        role: "row",
        class: classes,
        "aria-rowindex": position + 2,
        "aria-selected": this.selection ? String(chosen) : null,
        "aria-expanded": String(position === this.open),
        "data-position": position,
      },
      this.columns.map((column, i) => {
        const here = position === this.active.position && i === this.active.column;
        const attributes = { role: "gridcell", class: column.kind, tabindex: here ? "0" : "-1", "aria-colindex": i + 1 };
        return el("td", attributes, column.cell(row));
      }),
    );
  }

  opened(position) {
    const row = this.view.order[position];
    return el("tr", { class: "details" }, el("td", { colspan: this.across }, this.details(row)));
  }

  activeCell() {
    const { position, column } = this.active;
    return this.body.querySelector(`tr[data-position="${position}"]`)?.cells[column] ?? null;
  }

  /** Bring a row of the view into sight, and make its cell the active one. */
  goTo(position, column, focus) {
    const n = this.view.order.length;
    this.active = {
      position: Math.max(0, Math.min(n - 1, position)),
      column: Math.max(0, Math.min(this.columns.length - 1, column)),
    };
    const head = this.table.tHead.getBoundingClientRect().height;
    const top = this.top(this.active.position);
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    if (top + ROW + head > scrollTop + clientHeight) this.element.scrollTop = top + ROW + head - clientHeight;
    this.render();
    if (focus) this.activeCell()?.focus({ preventScroll: true });
  }

  toggleOpen(position) {
    this.open = this.open === position ? -1 : position;
    this.openHeight = 0;
    this.render();
    this.render(); // once more, now that the details' height is known
  }

  /** Show a feature's row with its details. */
  show(row) {
    const position = this.view.order.indexOf(row);
    if (position < 0) return;
    this.open = -1;
    this.element.scrollTop = Math.max(0, this.top(position) - 2 * ROW);
    this.goTo(position, this.active.column, false);
    this.toggleOpen(position);
  }

  clicked(event) {
    if (event.target.closest("a, input, label")) return;
    const row = event.target.closest("tr[data-position]");
    if (!row) return;
    const cell = event.target.closest("td");
    this.active = { position: Number(row.dataset.position), column: cell ? cell.cellIndex : 0 };
    this.toggleOpen(this.active.position);
    this.activeCell()?.focus({ preventScroll: true });
  }

  ticked(event) {
    const row = event.target.closest("tr[data-position]");
    if (!row) return;
    this.active = { position: Number(row.dataset.position), column: 0 };
    this.selection.toggle(this.view.order[this.active.position]);
  }

  pressed(event) {
    if (event.target !== this.element && !event.target.closest("td[role=gridcell]")) return;
    if (event.altKey || event.metaKey) return;
    const { position, column } = this.active;
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW) - 2);
    const last = this.view.order.length - 1;
    const moves = {
      ArrowDown: [position + 1, column],
      ArrowUp: [position - 1, column],
      ArrowRight: [position, column + 1],
      ArrowLeft: [position, column - 1],
      PageDown: [position + page, column],
      PageUp: [position - page, column],
      Home: event.ctrlKey ? [0, 0] : [position, 0],
      End: event.ctrlKey ? [last, this.columns.length - 1] : [position, this.columns.length - 1],
    };
    if (last < 0) return;
    if (event.key in moves) this.goTo(...moves[event.key], true);
    else if (event.key === "Enter") this.toggleOpen(position);
    else if (event.key === " ") this.selection?.toggle(this.view.order[position]);
    else if (event.key === "Escape" && this.open >= 0) this.toggleOpen(this.open);
    else return;
    event.preventDefault();
  }
}
