"""A report's page, driven: what is on it, and what people do there."""

import re
from typing import Any

from browser import until


def find(page: Any, selector: str) -> list[Any]:
    return page.find_elements("css selector", selector)


def click(page: Any, selector: str) -> None:
    page.execute_script("arguments[0].click()", find(page, selector)[0])


def shown(page: Any) -> list[int]:
    """Features of the rows that are in the document, from above."""
    rows = page.execute_script(
        "return [...document.querySelectorAll('tr[data-position] td.name')].map(c => c.textContent)"
    )
    return [int(re.sub(r"\D", "", row)) for row in rows]


def count(page: Any) -> int:
    return int(find(page, ".count")[0].text.split(" of ")[0].replace(",", ""))


def fill(page: Any, selector: str, text: str) -> None:
    page.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
        find(page, selector)[0],
        text,
    )


def heading(page: Any, title: str) -> Any:
    return next(h for h in find(page, "table.features thead th") if title in h.text)


def sort(page: Any, title: str) -> None:
    button = heading(page, title).find_element("tag name", "button")
    page.execute_script("arguments[0].click()", button)


def download(page: Any) -> str:
    known = set(page.downloads.glob("*.json"))
    click(page, "#download")
    (made,) = until(lambda: set(page.downloads.glob("*.json")) - known)
    return made.read_text("utf-8")


def scatter(page: Any) -> Any:
    place = find(page, ".scatter")[0]
    page.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", place
    )
    until(lambda: find(page, ".scatter .main-svg"))
    return place
