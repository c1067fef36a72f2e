"""The pages that people read: README, docs, deploy, and what they name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown file; `name` is its path below the repository."""

    name: str

    @property
    def path(self) -> Path:
        return ROOT / self.name

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[str]:
        """Return what stands in its fenced blocks of a language."""
        return re.findall(rf"^```{language}\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)

    def spans(self) -> list[str]:
        """Return its code spans, without blocks."""
        prose = re.sub(r"^```.*?^```", "", self.text, flags=re.DOTALL | re.MULTILINE)
        return re.findall(r"`([^`\n]+)`", prose)

    def links(self) -> list[str]:
        """Return the targets of its links and pictures that lie in the repository."""
        targets = re.findall(r"\]\(([^)\s]+)\)", self.text)
        return [target for target in targets if not re.match(r"[a-z]+:", target)]

    def commands(self) -> list[str]:
        """Return every command of leukoflow's that it names, in spans and in blocks."""
        lines = [line for block in self.blocks("[a-z]+") for line in block.splitlines()]
        named = [re.sub(r"^\$ ", "", line.strip()) for line in [*lines, *self.spans()]]
        return [
            re.sub(r"\s+#.*$", "", line) for line in named if re.match(r"(\.venv/bin/)?leukoflow [a-z]", line)
        ]


def pages() -> list[Page]:
    """Return all pages but the model card, which a command writes."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "deploy").glob("*.md")]
    found += [path for path in (ROOT / "docs").rglob("*.md") if "models" not in path.parts]
    return [Page(path.relative_to(ROOT).as_posix()) for path in sorted(found)]


def page(name: str) -> Page:
    """Return the page of a path below the repository."""
    return Page(name)


def anchors(page: Page) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", page.text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
