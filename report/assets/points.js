// A cloud of points, which may be a hundred thousand: painted on a canvas, and found again by a grid of
// cells.

const CELL = 16; // pixels
const REACH = 14; // pixels that a pointer may be off
const MANY = 20_000;
const SOME = 4000;

class Points {
  constructor() {
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.painted = null;
  }

  /** Paint what a scatter shows: features outside the filter, inside it, chosen, highlighted. */
  paint(scatter, scale) {
    const { features, view, selection, highlighted } = scatter;
    const [xs, ys] = scatter.values();
    const pen = this.pen(scale);
    const many = view.order.length;
    const size = many > MANY ? 1.2 : many > SOME ? 1.8 : 2.6;
    const square = (row, half) => pen.fillRect(scale.x(xs[row]) - half, scale.y(ys[row]) - half, 2 * half, 2 * half);
    const circle = (row, radius) => {
      pen.beginPath();
      pen.arc(scale.x(xs[row]), scale.y(ys[row]), radius, 0, 2 * Math.PI);
      pen.fill();
    };
    const known = (row) => !Number.isNaN(xs[row]) && !Number.isNaN(ys[row]);
    const dot = many > MANY ? square : circle;
    const [measured, predicted] = [colour("accent"), colour("second")];

    pen.globalAlpha = 0.25;
    pen.fillStyle = colour("faint");
    for (let row = 0; row < features.n; row += 1) {
      if (!view.shown[row] && known(row)) square(row, 0.8);
    }
    pen.globalAlpha = many > SOME ? 0.55 : 0.8;
    const shown = view.order.filter(known);
    for (const row of shown) {
      if (selection.has(row)) continue;
      pen.fillStyle = features.measured(row) ? measured : predicted;
      dot(row, size);
    }
    pen.globalAlpha = 1;
    pen.fillStyle = colour("chosen");
    for (const row of selection.rows()) if (known(row)) circle(row, size + 0.4);
    if (highlighted >= 0 && known(highlighted)) {
      pen.strokeStyle = colour("ink");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(scale.x(xs[highlighted]), scale.y(ys[highlighted]), 7, 0, 2 * Math.PI);
      pen.stroke();
    }
    this.painted = { cells: null, shown, xs, ys, scale };
  }

  /** The canvas, cleared and of the right size, within the axes. */
  pen(scale) {
    const density = window.devicePixelRatio || 1;
    this.canvas.width = scale.width * density;
    this.canvas.height = scale.height * density;
    const pen = this.canvas.getContext("2d");
    pen.scale(density, density);
    pen.beginPath();
    pen.rect(...scale.inner);
    pen.clip();
    return pen;
  }

  /** The feature nearest to a place, within reach; -1 where there is none. */
  nearest(left, top) {
    if (!this.painted) return -1;
    const { xs, ys, scale } = this.painted;
    const cells = (this.painted.cells ??= this.sorted());
    let best = -1;
    let least = REACH ** 2;
    for (let dy = -1; dy <= 1; dy += 1) {
      for (let dx = -1; dx <= 1; dx += 1) {
        for (const row of cells.get(this.cell(left + dx * CELL, top + dy * CELL)) ?? []) {
          const distance = (scale.x(xs[row]) - left) ** 2 + (scale.y(ys[row]) - top) ** 2;
          if (distance < least) [best, least] = [row, distance];
        }
      }
    }
    return best;
  }

  /** The rows that are shown, by the cell that they lie in. */
  sorted() {
    const { shown, xs, ys, scale } = this.painted;
    const cells = new Map();
    for (const row of shown) {
      const cell = this.cell(scale.x(xs[row]), scale.y(ys[row]));
      if (cells.has(cell)) cells.get(cell).push(row);
      else cells.set(cell, [row]);
    }
    return cells;
  }

  cell(left, top) {
    const across = Math.ceil(this.painted.scale.width / CELL);
    return Math.floor(top / CELL) * across + Math.floor(left / CELL);
  }
}
