"""The flat view: the block picture as tables, for screen readers, for printing, and where there is no WebGL."""

from html import escape

import streamlit as st

from normcore.figures.blocks import ABSENT, FADED, Blocks
from normcore.figures.theme import REGION_COLORS


def flat(blocks: Blocks, caption: str, level: int) -> None:
    """A table of one slice of the block, x across and y down; each cell says its region, or its share of influence."""
    across, down, deep = blocks.axes
    where = f", at {deep.names[level]}" if deep.names[level] else ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in across.names)
    rows = []
    for y, name in enumerate(down.names):
        cells = "".join(_cell(blocks, x, y, level) for x in range(len(across.names)))
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    note = f" {blocks.note[:1].upper()}{blocks.note[1:]}." if blocks.note else ""
    st.html(
        f'<div class="flat"><table><caption>{escape(caption)}{escape(where)}.{escape(note)}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(blocks: Blocks, x: int, y: int, z: int) -> str:
    color = int(blocks.colors[x, y, z])
    label = sum(axis.parts[i] for axis, i in zip(blocks.axes, (x, y, z), strict=True)) + 1
    picked = (x, y, z) == blocks.picked
    if blocks.palette == "influence":
        share = 0 if color == FADED else round(100 * color / (ABSENT - 1))
        text, style = f"{share}&nbsp;%", f"background:color-mix(in srgb, {REGION_COLORS[6]} {share}%, transparent)"
    elif color == FADED:
        text, style = f"{label:,}", "opacity:0.45"
    else:
        ground = REGION_COLORS[color % len(REGION_COLORS)]
        text, style = f"<b>{label:,}</b>", f"background:{ground};color:{_readable_on(ground)}"
    return f'<td style="{style}"{" class=picked" if picked else ""}>{text}{" ●" if picked else ""}</td>'


def _readable_on(ground: str) -> str:
    red, green, blue = (int(ground[i : i + 2], 16) for i in (1, 3, 5))
    return "#15171c" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "#ffffff"
