"""Numbers as people write them."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits: ``0.0312``, ``1,520``, ``3.1e-07``; a dash where there is none."""
    if value != value:
        return "–"
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if value != 0 and (size < 1e-3 or size >= 1e6):
        return f"{value:.{digits - 1}e}"
    return f"{value:.{digits}g}" if size < 10**digits else f"{value:,.0f}"


def rhat_words(value: float) -> str:
    """R-hat with three decimals, since 1.01 is where trouble begins."""
    return f"{value:.3f}" if value < 100 else number(value)


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 draw``, ``4,000 draws``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns under a rule; the first ``left`` ones begin at the left, the others end at the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        placed = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(placed).rstrip()

    return "\n".join([line(head), "  ".join("─" * width for width in widths), *map(line, rows)])


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """The same table as HTML."""
    import html

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} style="text-align:{"left" if column < left else "right"}">{html.escape(cell)}</{tag}>'
            for column, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
