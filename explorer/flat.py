"""The flat view: the block picture as tables, for screen readers, for printing, and where there is no WebGL."""

from html import escape

import streamlit as st

from normcore.figures.blocks import FADED, STRENGTHS, Blocks, share
from normcore.figures.theme import INFLUENCE_COLORS, REGION_COLORS, readable_on


def flat(blocks: Blocks, caption: str, level: int) -> None:
    """A table of one slice of the block, x across and y down; each cell says its region, or its share of influence."""
    across, down, deep = blocks.axes
    where = f", at {deep.names[level]}" if deep.names[level] else ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in across.names)
    rows = []
    for y, name in enumerate(down.names):
        cells = "".join(_cell(blocks, (x, y, level)) for x in range(len(across.names)))
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    note = f" {blocks.note[:1].upper()}{blocks.note[1:]}." if blocks.note else ""
    title = f"{escape(caption)}{escape(where)}.{escape(note)}"
    st.html(
        f'<p class="flat-title" aria-hidden="true">{title}</p><div class="flat"><table><caption>{title}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(blocks: Blocks, cell: tuple[int, int, int]) -> str:
    color = int(blocks.colors[cell])
    label = sum(axis.parts[i] for axis, i in zip(blocks.axes, cell, strict=True)) + 1
    ground = None
    if blocks.palette == "influence":
        text = "itself" if cell == blocks.picked else f"{share(color)}&nbsp;%"
        if color != FADED:
            ground = INFLUENCE_COLORS[1 + color * (len(INFLUENCE_COLORS) - 1) // STRENGTHS]
    elif color == FADED:
        text = f"{label:,}"
    else:
        text, ground = f"<b>{label:,}</b>", REGION_COLORS[color % len(REGION_COLORS)]
    style = f"background:{ground};color:{readable_on(ground)}" if ground else "opacity:0.68"
    picked = cell == blocks.picked
    return f'<td style="{style}"{" class=picked" if picked else ""}>{text}{" ●" if picked else ""}</td>'
