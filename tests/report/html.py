"""A strict reader of reports: every element closed in order, nothing fetched, tables and named texts at hand."""

import json
import re
from html.parser import HTMLParser
from typing import Any

VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})


class Report(HTMLParser):
    """What a report says; AssertionError for markup that is not well-formed or reaches outside of the file."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[dict[str, str]] = []
        self.text = ""
        self.by_id: dict[str, str] = {}
        self.tables: list[list[list[str]]] = []
        self.images: list[dict[str, str]] = []
        self.scripts: list[str] = []
        assert html.startswith("<!DOCTYPE html>")
        assert not re.search(r"https?://|//[a-z]|url\(|@import", html.partition("<body>")[0])
        assert not re.search("https?:", html)
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        assert len(found) == len(attrs)
        for name in ("src", "href"):
            assert found.get(name, "data:").startswith(("data:", "#"))
        assert not [name for name in found if name.startswith("on")]
        match tag:
            case "table":
                self.tables.append([])
            case "tr":
                self.tables[-1].append([])
            case "td" | "th":
                self.tables[-1][-1].append("")
            case "img":
                self.images.append(found)
            case "script":
                self.scripts.append("")
        if tag not in VOID:
            self.open.append({"tag": tag, **found})

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert any(found["tag"] == "svg" for found in self.open)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        data = data.replace("\u00a0", " ")  # which keeps a number and its unit on one line
        tags = [found["tag"] for found in self.open]
        if tags and tags[-1] == "script":
            self.scripts[-1] += data
        if not tags or tags[-1] in ("style", "script"):
            return
        self.text += data
        if "td" in tags or "th" in tags:
            self.tables[-1][-1][-1] += data
        for found in self.open:
            if "id" in found:
                self.by_id[found["id"]] = self.by_id.get(found["id"], "") + data

    def table(self, first_heading: str) -> list[list[str]]:
        """Return the body of the table whose first heading that is, its cells without space around."""
        (rows,) = (table[1:] for table in self.tables if table[0][0].strip() == first_heading)
        return [[" ".join(cell.split()) for cell in row] for row in rows]

    @property
    def data(self) -> dict[str, list[Any]]:
        """What the scripts read: the properties of every image."""
        found: dict[str, list[Any]] = json.loads(self.scripts[0])
        return found
