"""Every relative link and picture of our pages leads somewhere."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(<?([^)>\s]+)>?[^)]*\)|(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]:\s+(\S+)", flags=re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", flags=re.DOTALL | re.MULTILINE)


def tracked_pages() -> list[str]:
    """The Markdown files that git knows, relative to the root; none outside a checkout."""
    try:
        done = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return []
    return done.stdout.splitlines()


def dead_links(page: Path) -> list[str]:
    """The relative links of a page that lead to no file or folder; what stands in code is no link."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    targets = ["".join(found) for found in LINK.findall(text)]
    relative = [target for target in targets if not re.match(r"[a-z][a-z+.-]*:|#|//", target, flags=re.IGNORECASE)]
    return [target for target in relative if not (page.parent / unquote(target.partition("#")[0])).exists()]


def test_every_relative_link_leads_somewhere():
    pages = tracked_pages()
    if not pages:
        pytest.skip("needs a git checkout")
    dead = {page: found for page in pages if (ROOT / page).exists() and (found := dead_links(ROOT / page))}
    assert not dead


def test_dead_links_are_found(tmp_path):
    (tmp_path / "there.png").touch()
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.png) ![b](gone.png 'title') <img src=\"lost.png\"> [c](https://example.org/x) [d](#part)\n"
        "[e](there.png#part) `[f](code.md)`\n\n[g]: missing.md\n"
    )
    assert dead_links(page) == ["gone.png", "lost.png", "missing.md"]
