// The page comes to life.

const beforePrinting = [];

async function main() {
  const about = await unpackJson("about");
  names = about.names;
  meanings = about.meanings;
  const place = document.getElementById("main");
  place.replaceChildren();
  if (about.comparison) {
    place.append(...comparisonParts(about.comparison, about.left_out, choose));
    document.title = `${about.runs.length + about.left_out.length} settings \u2013 cleansteer report`;
  }
  const story = el("div", { id: "story" });
  place.append(story);
  document.getElementById("footer").append(
    el("p", {}, `Written by cleansteer on ${about.created.slice(0, 10)}. `, "Definitions of all labels and statistics: E. Duan, arXiv:2606.08365 (2026)."),
  );
  const open = async (number) => {
    const found = await unpackJson(`run-${number}`);
    dropCharts(story);
    beforePrinting.length = 0;
    story.replaceChildren(...storyParts(found));
    requestAnimationFrame(() => setTimeout(() => (window.ready ??= performance.now())));
    drawInIdleTime();
    if (!about.comparison) document.title = `${visible(found.title)} \u2013 cleansteer report`;
  };
  if (about.runs.length > 1) chooser(about.runs, open);
  await open(0);
}

function chooser(runs, open) {
  const select = document.getElementById("chooser");
  select.append(...runs.map((name, number) => el("option", { value: number }, visible(name))));
  select.addEventListener("change", async () => {
    await open(Number(select.value));
    document.getElementById("story").scrollIntoView({ behavior: "smooth" });
  });
  select.closest("label").hidden = false;
}

/** Lead to the report of a setting. */
function choose(number) {
  const select = document.getElementById("chooser");
  select.value = String(number);
  select.dispatchEvent(new Event("change"));
}

const darkness = window.matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const set = document.documentElement.dataset.theme;
  return set ? set === "dark" : darkness.matches;
}

function themed() {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
  redrawCharts();
}

document.getElementById("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  themed();
});
darkness.addEventListener("change", themed);
themed();

// What is printed is light, whole and open.
let beforePrint = null;
window.addEventListener("beforeprint", () => {
  const closed = [...document.querySelectorAll("details:not([open])")];
  beforePrint = { theme: document.documentElement.dataset.theme, closed };
  document.documentElement.dataset.theme = "light";
  for (const details of closed) details.open = true;
  for (const call of beforePrinting) call();
  drawAllCharts();
});
window.addEventListener("afterprint", () => {
  if (!beforePrint) return;
  if (beforePrint.theme) document.documentElement.dataset.theme = beforePrint.theme;
  else delete document.documentElement.dataset.theme;
  for (const details of beforePrint.closed) details.open = false;
  redrawCharts();
});
