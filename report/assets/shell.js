// The page around what it tells: light and dark, and printing.

const beforePrinting = [];

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
