"""What a problem is, for the report: the small part of reStructuredText that docstrings here use, as HTML.

Known are paragraphs, bullet lists, simple tables (between rules of ``=``), literal and other indented blocks,
``.. math::``, and within lines ``literals``, *emphasis*, **strong** and roles such as ``:class:``. What is not known
stays as it is written.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence

# The parts of a docstring that are about a call rather than about the problem.
CALL = re.compile(r"\n(?:Args|Arguments|Returns|Raises):\n")
RULE = re.compile(r"=+( +=+)+ *")
BULLET = re.compile(r"[-*] +")
# Literals come first: nothing is marked up within them.
INLINE = re.compile(
    r"``(?P<literal>.+?)``"
    r"|:\w+:`~?(?:[\w.]*\.)?(?P<role>\w+)`"
    r"|\*\*(?P<strong>\S(?:.*?\S)?)\*\*"
    r"|(?<![\w*])\*(?P<emphasis>[^\s*](?:[^*]*[^\s*])?)\*(?![\w*])",
    re.DOTALL,
)
TAGS = {"literal": "code", "role": "code", "strong": "strong", "emphasis": "em"}


def as_html(docstring: str) -> str:
    """HTML of a docstring; everything in it is escaped."""
    lines = CALL.split(docstring.strip("\n") + "\n")[0].expandtabs().splitlines()
    parts: list[str] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
        elif RULE.fullmatch(lines[at]) and (end := _end_of_table(lines, at)) is not None:
            parts.append(_table(lines[at : end + 1]))
            at = end + 1
        elif lines[at].startswith(" ") or lines[at].strip() == ".. math::":
            end = _end_of_indented(lines, at + 1)
            parts.append(_block(lines[at:end]))
            at = end
        else:
            end = at + 1
            while end < len(lines) and lines[end].strip() and not RULE.fullmatch(lines[end]):
                if lines[end].startswith(" ") and not BULLET.match(lines[at]):
                    break
                end += 1
            parts.append(_paragraph(lines[at:end]))
            at = end
    return "\n".join(part for part in parts if part)


def _end_of_indented(lines: Sequence[str], at: int) -> int:
    """Where an indented block ends; empty lines within it belong to it."""
    end = at
    while at < len(lines) and (not lines[at].strip() or lines[at].startswith(" ")):
        at += 1
        end = at if lines[at - 1].strip() else end
    return end


def _block(lines: Sequence[str]) -> str:
    if lines[0].strip() == ".. math::":
        lines = lines[1:]
    body = textwrap.dedent("\n".join(lines)).strip("\n")
    return f"<pre>{html.escape(body)}</pre>" if body.strip() else ""


def _paragraph(lines: Sequence[str]) -> str:
    if BULLET.match(lines[0]):
        items = re.split(r"\n(?=[-*] )", "\n".join(lines))
        return (
            "<ul>" + "".join(f"<li>{_inline(BULLET.sub('', item, count=1))}</li>" for item in items) + "</ul>"
        )
    text = "\n".join(lines)
    if text.strip() == "::":  # announces a literal block and says nothing
        return ""
    return f"<p>{_inline(text[:-1] if text.endswith('::') else text)}</p>"


def _inline(text: str) -> str:
    """One run of text with its marks as tags; line ends are those of the source and mean nothing."""
    text = re.sub(r"\s*\n\s*", " ", text.strip())
    parts, at = [], 0
    for found in INLINE.finditer(text):
        kind = str(found.lastgroup)
        parts.append(html.escape(text[at : found.start()], quote=False))
        parts.append(f"<{TAGS[kind]}>{html.escape(found[kind], quote=False)}</{TAGS[kind]}>")
        at = found.end()
    return "".join(parts) + html.escape(text[at:], quote=False)


# -- tables ------------------------------------------------------------------------------------------------------------


def _end_of_table(lines: Sequence[str], at: int) -> int | None:
    """The line of the last rule: one with an empty line, or nothing, behind it; ``None`` if there is none."""
    rules = [k for k in range(at + 1, len(lines)) if RULE.fullmatch(lines[k])]
    return next((k for k in rules if k + 1 == len(lines) or not lines[k + 1].strip()), None)


def _table(lines: Sequence[str]) -> str:
    starts = [found.start() for found in re.finditer(r"=+", lines[0])]
    rules = [k for k, line in enumerate(lines) if RULE.fullmatch(line)]
    head = _rows(lines[1 : rules[1]], starts) if len(rules) > 2 else []
    body = _rows(lines[rules[-2] + 1 : -1], starts)

    def drawn(rows: Sequence[Sequence[str]], tag: str) -> str:
        return "".join(
            "<tr>" + "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in row) + "</tr>" for row in rows
        )

    top = f"<thead>{drawn(head, 'th')}</thead>" if head else ""
    return (
        f'<div class="scroll"><table class="quantities">{top}<tbody>{drawn(body, "td")}</tbody></table></div>'
    )


def _rows(lines: Sequence[str], starts: Sequence[int]) -> list[list[str]]:
    """Cells of each row; a line with an empty first cell goes on with the row above it."""
    rows: list[list[str]] = []
    for line in lines:
        if not line.strip():
            continue
        cells = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
        if not cells[0] and rows:
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
        else:
            rows.append(cells)
    return rows
