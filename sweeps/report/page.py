"""One self-contained HTML page of a sweep: it opens offline and asks the network for nothing.

Every text that a user wrote (names, descriptions, claims, errors, the sweep file) is escaped where
it meets the page; tables travel as JSON in which no tag can be opened.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from html import escape
from pathlib import Path

from sweeps.report.book import Book
from sweeps.report.data import ReportData
from sweeps.report.sections.alignment import alignment_section
from sweeps.report.sections.associations import associations_section
from sweeps.report.sections.claims import claim_cards
from sweeps.report.sections.loops import calls_section
from sweeps.report.sections.persistence import persistence_section
from sweeps.report.sections.profiles import profile_grid, slopes_section
from sweeps.report.sections.runs import left_out_section, provenance_section, status_section
from sweeps.report.sections.top import header_section, tools
from sweeps.report.sections.training import changes_section, learned_section, ratios_section

_PAGE = Path(__file__).parent / "assets"


def render(data: ReportData, made: datetime, live: str | None = None) -> str:
    """Return the page.

    Args:
        made: the moment it is dated.
        live: for a served page, the state it was made from: it asks the server for ``state`` and
            reloads when that differs. A page without it asks nobody anything.
    """
    book = Book()
    body = "\n".join(
        [
            header_section(data, made),
            tools(data),
            profile_grid(data, book),
            calls_section(data, book),
            persistence_section(data, book),
            slopes_section(data, book),
            alignment_section(data, book),
            learned_section(data, book),
            changes_section(data, book),
            ratios_section(data, book),
            associations_section(data, book),
            claim_cards(data.claims, data.claims_source),
            left_out_section(data),
            status_section(data),
            provenance_section(data),
        ]
    )
    title = escape(f"{data.name}: depth profiles")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>"
        '<link rel="icon" href="data:,">'
        f"<style>{(_PAGE / 'report.css').read_text(encoding='utf-8')}</style></head>\n"
        f'<body><main>{body}</main><p id="status" role="status" class="unseen"></p>\n'
        f'<script type="application/json" id="report-data">{book.json(data)}</script>\n'
        f"<script>{vega_script()}</script>\n"
        f"<script>{(_PAGE / 'report.js').read_text(encoding='utf-8')}</script>\n"
        f"{'' if live is None else _reloading(live)}</body></html>\n"
    )


def _reloading(state: str) -> str:
    return (
        "<script>setInterval(async () => { try {"
        f" if (await (await fetch('/state')).text() !== {json.dumps(state)}) location.reload();"
        " } catch { /* the server has stopped: the page stays as it is */ } }, 3000);</script>\n"
    )


@cache
def vega_script() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script that defines window.vegaEmbed."""
    import altair as alt
    import vl_convert

    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    # Its own scope: the bundle is a module, whose names are not meant for the page.
    return "(() => {" + bundle.replace("</script", "<\\/script") + "})();"
