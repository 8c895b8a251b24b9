// Elements and text. Whatever comes from a run reaches the page through `visible` and textContent.

/** An element with attributes (functions are listeners) and children (strings become text). */
function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

// Control, format (bidirectional marks, zero widths, soft hyphen, tags) and separator characters,
// unassigned and private ones, lone surrogates.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/gu;
const SHORT_ESCAPES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** Text in which no character hides, moves or reorders others: those that would are escaped. */
function visible(text) {
  return String(text).replace(
    UNSEEN,
    (c) => SHORT_ESCAPES[c] ?? `\\u{${c.codePointAt(0).toString(16)}}`,
  );
}

/** A name from a run, set apart from the direction of the text around it. */
function bdi(text) {
  return el("bdi", {}, visible(text));
}

/** A token as a chip, the spaces around it shown. */
function token(text) {
  const shown = visible(text).replace(/^ +| +$/g, (spaces) => "\u00b7".repeat(spaces.length));
  return el("bdi", { class: "token" }, shown);
}

const MINUS = "\u2212";

/** A number with so many decimals and a true minus sign; a dash where there is none. */
function fixed(value, decimals) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  const text = value.toFixed(decimals);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", MINUS);
}

/** A number with a sign. */
function signed(value, decimals) {
  const text = fixed(value, decimals);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

/** A number with three significant digits or so, as tables show it. */
function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return whole(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
    return value.toExponential(1).replace("-", MINUS);
  }
  return fixed(value, size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/** A whole number with separators. */
function whole(value) {
  return value.toLocaleString("en").replace("-", MINUS);
}

/** A share in per cent. */
function percent(value) {
  if (value === null || Number.isNaN(value)) return "\u2013";
  const share = 100 * value;
  return `${fixed(share, share >= 10 ? 0 : share >= 1 ? 1 : 2)}\u2009%`;
}

/** A figure with its interval: 0.83 [0.80, 0.86]. */
function interval(figure) {
  if (figure === null) return "\u2013";
  if (figure.low === null) return short(figure.value);
  const size = Math.max(...[figure.value, figure.low, figure.high].map(Math.abs));
  const decimals = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : size >= 0.01 ? 3 : 4;
  return `${fixed(figure.value, decimals)} [${fixed(figure.low, decimals)}, ${fixed(figure.high, decimals)}]`;
}
