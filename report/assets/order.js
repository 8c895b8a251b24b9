// The order in which rows are shown.

class Order {
  constructor() {
    this.sorting = { key: "order", descending: false };
    this.keys = { order: (row) => row };
    this.listeners = [];
    this.order = [];
  }

  /** Sort by a column; by the same one again, the other way round. */
  sortBy(key, descends) {
    const again = this.sorting.key === key;
    this.sorting = { key, descending: again ? !this.sorting.descending : Boolean(descends) };
    this.update();
  }

  sorted(rows) {
    const { key, descending } = this.sorting;
    if (key === "order") return descending ? rows.reverse() : rows;
    const values = rows.map(this.keys[key]);
    const way = descending ? -1 : 1;
    const unknown = (value) => value === "" || Number.isNaN(value);
    const places = Uint32Array.from(rows.keys());
    places.sort((i, j) => {
      const [a, b] = [values[i], values[j]];
      if (unknown(a) || unknown(b)) return unknown(a) - unknown(b) || i - j;
      return (a < b ? -way : a > b ? way : 0) || i - j;
    });
    return Array.from(places, (place) => rows[place]);
  }
}
