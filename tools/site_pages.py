"""Pages of the docs site that lie outside of docs/ (a hook of MkDocs, see mkdocs.yml).

README.md is the front page; CHANGELOG.md and SECURITY.md are pages. Other files of the repository
that a page links to, such as a source, become part of the site, so that every link works there as
in the repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages of PAGES, and every file outside of docs/ that a page links to."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=LINK.sub(_from_root, texts[name])))
    linked = {target for text in texts.values() for target in LINK.findall(text)}
    for file in files.documentation_pages():
        if file.src_uri not in PAGES.values():
            linked |= {t[3:] for t in LINK.findall(file.content_string) if t.startswith("../")}
    for target in sorted(linked - PAGES.keys()):
        if not target.startswith("docs/"):
            files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links of a page in docs/ lead to the pages and files that ``on_files`` added."""
    return LINK.sub(_from_docs, markdown)


def _from_root(link: re.Match[str]) -> str:
    target = link.group(1)
    return f"]({PAGES.get(target, target.removeprefix('docs/'))}"


def _from_docs(link: re.Match[str]) -> str:
    target = link.group(1)
    if not target.startswith("../"):
        return link.group(0)
    return f"]({PAGES.get(target[3:], target[3:])}"
