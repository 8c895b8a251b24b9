// The page comes to life.

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
