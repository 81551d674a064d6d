"""Where a paper is found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SITES = (
    ("arxiv", "arXiv", "https://arxiv.org/abs/"),
    ("openreview", "OpenReview", "https://openreview.net/forum?id="),
)


def paper_link(paper: Mapping[str, Any]) -> tuple[str, str]:
    """What to call the place and its address, both empty where none is given; the address where it is a plain one.

    Example:
        >>> paper_link({"arxiv": "2311.12908"})
        ('arXiv 2311.12908', 'https://arxiv.org/abs/2311.12908')
    """
    for key, site, address in SITES:
        if found := str(paper.get(key) or ""):
            plain = re.fullmatch(r"[A-Za-z0-9./_-]+", found)
            return f"{site} {found}", f"{address}{found}" if plain else ""
    return "", ""
