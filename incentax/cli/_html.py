"""One self-contained page of a run: it opens without a network and can be sent as it is."""

import base64
import json
from html import escape
from pathlib import Path
from typing import Any

from .._files import plain
from ..experiments import Table

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } caption { text-align: left; font-weight: 600; }
td, th { border-bottom: 1px solid #ddd; padding: .25rem .75rem .25rem 0; text-align: left; }
td { font-variant-numeric: tabular-nums; } img { max-width: 100%; }
.tables { overflow-x: auto; } pre { overflow-x: auto; background: #f6f6f6; padding: .75rem; }
"""


def page(
    title: str, words: list[str], tables: list[Table], figure: Path, content: dict[str, Any]
) -> str:
    """HTML: what was solved and found, certificate, figure, and what it ran on."""
    picture = base64.b64encode(figure.read_bytes()).decode()
    environment = json.dumps(plain(content["environment"]), indent=2)
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<h2>Verdict</h2>",
        *(f"<p>{escape(sentence)}</p>" for sentence in words),
        "<h2>Figures</h2>",
        *map(_table, tables),
        "<h2>Picture</h2>",
        f'<img alt="{escape(title)}" src="data:image/png;base64,{picture}">',
    ]
    if "certificate" in content:
        parts += ["<h2>Certificate</h2>", _certificate(content["certificate"])]
    parts += ["<h2>Environment</h2>", f"<pre>{escape(environment)}</pre>"]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(parts)
    html = f'<html lang="en"><head>{head}{viewport}</head>\n<body>{body}</body></html>'
    return f"<!doctype html>\n{html}\n"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in table.rows
    )
    caption = f"<caption>{escape(table.title)}</caption>"
    return f'<div class="tables"><table>{caption}<tr>{head}</tr>\n{rows}</table></div>'


def _certificate(certificate: dict[str, Any]) -> str:
    rows = [
        (name.replace("_", " "), value if isinstance(value, str) else f"{float(value):.6e}")
        for name, value in certificate.items()
        if name != "verdict" and value is not None
    ]
    return _table(Table("Everything recomputed at the incentives shown", ("what", "value"), rows))
