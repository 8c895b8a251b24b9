"""How long a report takes to write and to open, and how large it is.

python benchmarks/speed/report.py RUN [--features 131072] [--repeats 3]

The tables of a screened run are stretched to so many features: rows drawn with replacement, numbers
shaken, tokens drawn from a vocabulary of 50,000. The report is written by the program itself, start
of Python included, and opened in headless Chromium (with the Python package selenium and Debian's
chromium), from the navigation to the first rows of the table.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

VOCABULARY = 50_000
TOKENS = 10


def stretched(run: Path, to: Path, n: int) -> None:
    """A copy of a run whose dictionary has n features."""
    shutil.copytree(run, to)
    generator = np.random.default_rng(0)
    ranking = pd.read_parquet(run / "ranking.parquet").set_index("feature")
    features = pd.read_parquet(run / "features.parquet").set_index("feature")
    drawn = generator.choice(ranking.index.to_numpy(), n)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz "))
    words = ["".join(w) for w in generator.choice(letters, (VOCABULARY, 7))]
    codes = generator.integers(VOCABULARY, size=(n, TOKENS))
    tokens = [[words[code] for code in row] for row in codes]
    for name, table in (("features", features), ("ranking", ranking)):
        large = table.loc[drawn].reset_index(drop=True)
        for column in large.select_dtypes("float"):
            large[column] *= 1 + 0.01 * generator.normal(size=n)
        large.insert(0, "feature", np.arange(n))
        large["direct_top_tokens"] = tokens
        if name == "ranking":
            large = large.sort_values("predicted_clean_score", ascending=False)
            large["rank"] = np.arange(1, n + 1)
        large.to_parquet(to / f"{name}.parquet", index=False)


def opened(report: Path) -> tuple[float, float]:
    """Milliseconds from the navigation until the table is there, and until the charts in sight are
    drawn too.
    """
    from selenium import webdriver

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in ("headless=new", "no-sandbox", "disable-gpu", f"user-data-dir={profile}"):
            options.add_argument(f"--{argument}")
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        browser = webdriver.Chrome(options, service)
        try:
            browser.get("about:blank")
            time.sleep(1)
            browser.get(report.resolve().as_uri())
            deadline = time.monotonic() + 60
            while not (found := browser.execute_script("return window.ready ?? null")):
                assert time.monotonic() < deadline, "the report did not open in a minute"
                time.sleep(0.02)
            while not browser.execute_script("return document.querySelector('.main-svg') !== null"):
                assert time.monotonic() < deadline, "no chart was drawn in a minute"
                time.sleep(0.02)
            return found, browser.execute_script("return performance.now()")
        finally:
            browser.quit()


def main() -> None:
    """Write and open a few times, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--features", type=int, default=131_072)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "report.html"
        stretched(arguments.run, run, arguments.features)
        program = "from cleansteer.cli.app import main; main()"
        command = [sys.executable, "-c", program, "report", str(run), "--out", str(out), "--json"]
        written, sizes, times = [], set(), []
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            told = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            written.append(time.perf_counter() - start)
            sizes.add(json.loads(told.stdout)["bytes"])
            times.append(opened(out))
        table, charts = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"{arguments.features} features: written in {statistics.median(written):.1f} s, "
            f"{max(sizes) / 1e6:.1f} MB; the table is there after {table / 1000:.2f} s, the first chart "
            f"after {charts / 1000:.2f} s (medians of {arguments.repeats})"
        )


if __name__ == "__main__":
    main()
