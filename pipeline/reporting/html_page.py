"""HTML page with everything inside: tables, images as data, style; nothing loaded from elsewhere. The script of a
report is pipeline/reporting/viewer.py's."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from pipeline.reporting.results import Table, best_cells

STYLE = Path(__file__).with_name("page.css")

WITHDRAWN = ("DukeMTMC-reID and what derives from it was withdrawn by its authors; metrics on it stand here for "
             "comparison with published ones only. The rendered sets are the privacy-free default.")


def page(*, title: str, introduction: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The page; `sections` are (anchor, heading, HTML). Titles and the introduction are plain text."""
    links = " ".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading, _ in sections)
    body = "\n".join(f'<section id="{anchor}">\n<h2>{escape(heading)}</h2>\n{html}\n</section>'
                     for anchor, heading, html in sections)

    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
            f"<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
            f"{paragraph(introduction)}\n"
            f"<nav>{links}</nav>\n{body}\n</body>\n</html>\n")


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def bullets(items: Sequence[str]) -> str:
    return '<ul class="note">' + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def table_html(table: Table) -> str:
    """The table, scrolling sideways where it does not fit, and its note; the highest metrics are bold."""
    best = best_cells(table)
    text = [any(character.isalpha() for row in table.rows for character in row[column])
            for column in range(len(table.columns))]

    head = "".join(f'<th scope="col"{_class("text" * words)}>{escape(name)}</th>'
                   for name, words in zip(table.columns, text, strict=True))

    rows = ""
    for number, row in enumerate(table.rows):
        cells = "".join(f"<td{_class('best' * ((number, column) in best) or 'text' * text[column])}>{escape(cell)}</td>"
                        for column, cell in enumerate(row) if column)
        rows += f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>\n'

    return (f'<div class="wide" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n'
            f"</table></div>\n{note(table.note)}")


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def png(data: bytes, alt: str) -> str:
    """A PNG inside the page, shown smaller than it is (sharp on fine screens), scrolling sideways where too wide."""
    pixels = int.from_bytes(data[16:20], "big")  # the header of every PNG holds its width there
    source = _data(data, "image/png")
    return (f'<div class="wide" tabindex="0"><img class="png" style="--pixels: {pixels}" src="{source}" '
            f'alt="{escape(alt)}"></div>')


def svg(data: bytes, alt: str) -> str:
    """An SVG inside the page, as wide as there is room."""
    return f'<img class="svg" src="{_data(data, "image/svg+xml")}" alt="{escape(alt)}">'


def _data(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
