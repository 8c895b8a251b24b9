// The data that the page carries: base64 of gzip of JSON, in script elements that are never run.

/** The text packed into the element of an id. */
async function unpack(id) {
  const packed = document.getElementById(id).textContent;
  const stream = new Blob([bytes(packed)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function bytes(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const binary = atob(base64);
  const found = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) found[i] = binary.charCodeAt(i);
  return found;
}

async function unpackJson(id) {
  return JSON.parse(await unpack(id));
}

/** The table of features: columns by name, rows by number in the order of the ranking. */
class Features {
  constructor(packed) {
    this.n = packed.n;
    this.index = packed.feature;
    this.rank = packed.rank ?? null;
    this.targets = packed.targets;
    this.collateral = packed.collateral;
    this.eligible = Uint8Array.from(packed.flags.eligible);
    this.allowed = Uint8Array.from(packed.flags.allowed);
    this.numbers = {};
    for (const [name, { decimals, values }] of Object.entries(packed.numbers)) {
      const scale = 10 ** decimals;
      const column = new Float64Array(values.length);
      for (let i = 0; i < values.length; i += 1) {
        column[i] = values[i] === null ? NaN : values[i] / scale;
      }
      this.numbers[name] = column;
    }
    this.words = packed.words;
    this.descriptions = packed.descriptions ?? null;
  }

  number(name, row) {
    return this.numbers[name]?.[row] ?? NaN;
  }

  /** Whether any row has a number of this name. */
  has(name) {
    return name in this.numbers && this.numbers[name].some((value) => !Number.isNaN(value));
  }

  /** The words of a kind (tokens, reasons) in a row. */
  wordsOf(kind, row) {
    const packed = this.words[kind];
    if (!packed) return [];
    const start = row * packed.width;
    return packed.codes
      .slice(start, start + packed.width)
      .filter((code) => code >= 0)
      .map((code) => packed.words[code]);
  }

  description(row) {
    return this.descriptions?.[row] ?? "";
  }

  measured(row) {
    return !Number.isNaN(this.number("measured_clean_score", row));
  }
}
