"""The HTML page of a reproduction: claims with verdicts, figures, tables, settings; one file, nothing fetched."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from prefopt.report.page import Section, page
from prefopt.reproduce.core import FAILS, HOLDS, OPEN, Claim, Plot, Reproduction

CLAIMS = """<p class="quiet">A directional claim holds when the whole 95 % t-interval of its paired differences over
seeds lies above 0, does not hold here when the whole interval lies below, and is inconclusive otherwise. An exact
claim holds when its largest error is within the tolerance; its interval is the range over seeds. Intervals are per
claim, so a table this long may hold a lucky one.</p>
<div class="scroll"><table><thead><tr><th>claim</th><th>measured [interval]</th><th>verdict</th></tr></thead><tbody>
{% for c in claims %}<tr><td>{{ c.statement }}<br><span class="quiet">{{ c.source }}. {{ c.how }}. Expected
{{ c.expected }}.</span></td><td>{{ measured(c) }}</td><td><span class="badge {{ badges[c.verdict] }}">{{ c.verdict }}
</span></td></tr>{% endfor %}</tbody></table></div>
{% if notes %}<ul>{% for n in notes %}<li>{{ n }}</li>{% endfor %}</ul>{% endif %}"""

FIGURES = """{% for name, caption, data in images %}<figure><img alt="{{ caption }}" style="max-width:100%"
src="data:image/png;base64,{{ data }}"><figcaption>{{ caption }} ({{ name }}.png)</figcaption></figure>{% endfor %}"""

TABLES = """{% for t in tables %}<h3>{{ t.title }}</h3><div class="scroll"><table class="numbers"><thead><tr>
{% for c in t.columns %}<th>{{ c }}</th>{% endfor %}</tr></thead><tbody>{% for row in t.rows %}<tr>
{% for x in row %}<td>{{ cell(x) }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>{% endfor %}"""

SETTINGS = """<div class="code"><pre>{{ settings }}</pre></div>"""


def measured(claim: Claim) -> str:
    """Measured value with its interval and unit: three decimals, or two digits where that would hide the number."""
    low, high = claim.interval
    if math.isnan(claim.measured):
        return "not measured"
    scale = max(abs(x) for x in (claim.measured, low, high) if math.isfinite(x))
    form = "{:g}" if scale == 0 else "{:.3f}" if 0.005 <= scale < 1e4 else "{:.1e}"
    value, *ends = (form.format(x) if math.isfinite(x) else "?" for x in (claim.measured, low, high))
    return f"{value} [{', '.join(ends)}] {claim.unit}".rstrip()


def cell(value: Any) -> str:
    """A table cell: floats in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def png(plot: Plot) -> str:
    """The figure as base64 text."""
    import matplotlib

    from prefopt.reproduce.plots import STYLE

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        plot.figure.savefig(buffer, dpi=130, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def html_page(result: Reproduction, versions: Mapping[str, Any]) -> str:
    """The whole page as text, figures embedded."""
    from jinja2 import Environment

    environment = Environment(autoescape=True)

    def fill(template: str, **values: Any) -> Markup:
        return Markup(environment.from_string(template).render(**values))

    badges = {HOLDS: "pass", FAILS: "fail", OPEN: "note"}
    images = [(plot.name, plot.caption, png(plot)) for plot in result.plots]
    settings = json.dumps(result.settings, indent=1, ensure_ascii=False)
    header = fill(
        '<p class="lede">{{ r.title }} ({{ r.published }}): its claims in miniature.</p><p class="status">'
        "{% for v in verdicts %}{{ v[1] }} {{ v[0] }}{{ '' if loop.last else ', ' }}{% endfor %}</p>",
        r=result,
        verdicts=[(v, sum(c.verdict == v for c in result.claims)) for v in (HOLDS, FAILS, OPEN)],
    )
    claims = fill(CLAIMS, claims=result.claims, notes=result.notes, measured=measured, badges=badges)
    return page(
        f"prefopt reproduce {result.name}",
        [
            Section("claims", "Claims", claims),
            Section("figures", "Figures", fill(FIGURES, images=images)),
            Section("numbers", "Numbers", fill(TABLES, tables=result.tables, cell=cell)),
            Section("settings", "Settings", fill(SETTINGS, settings=settings)),
        ],
        header=header,
        kicker="Reproduction",
        footer=f"{result.seconds:.0f} s. " + ", ".join(f"{k} {v}" for k, v in versions.items()),
    )
