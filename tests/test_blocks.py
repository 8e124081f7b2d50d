"""Laws of the block picture: what its geometry must do for every block, however it is divided."""

import json
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import pytest
from browser.block_samples import SAMPLES, axis, carved, influence, partition

from normcore.figures import theme
from normcore.figures.blocks import ABSENT, FADED, GAP, Blocks, describe, figure, surface, wire
from normcore.figures.geometry import Mesh

pytestmark = pytest.mark.filterwarnings("error")
SHAPE = (4, 6, 8)


def random_blocks(seed: int) -> Blocks:
    """Make a block with arbitrary colors, holes, faded cells and spaces between groups."""
    random = np.random.default_rng(seed)
    shape = (3, 4, 6)
    axes = (axis(0, 3, 3, 8, space=0.5), axis(1, 4, 2, 4), axis(2, 6, 2, 1, space=0.25))
    colors = random.choice(np.array([0, 1, 5, FADED, ABSENT], dtype=np.uint8), size=shape, p=[0.4, 0.2, 0.1, 0.2, 0.1])
    return Blocks(axes, colors, None, "regions", 99, "")


def everything(blocks: Blocks) -> Mesh:
    """Build the faces of all cells that are there."""
    return surface(blocks).mesh(blocks.colors != ABSENT)


def normals(mesh: Mesh) -> np.ndarray:
    """Give the outward normal of every triangle, as long as twice its area."""
    a, b, c = (mesh.corners[mesh.triangles[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def volumes(mesh: Mesh) -> np.ndarray:
    """Measure the volume inside from the x, the y and the z faces: three answers that agree if nothing is open."""
    centers = mesh.corners[mesh.triangles].mean(axis=1)
    return (centers * normals(mesh) / 2).sum(axis=0)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "carved"])
def test_every_surface_is_closed(name):
    found = volumes(everything(SAMPLES[name]))
    assert found == pytest.approx(np.full(3, found.mean()))
    assert found.mean() > 0


def test_a_surface_with_inner_corners_is_closed():
    base = partition((3, 3, 2), (1, 1, 1))
    colors = base.colors.copy()
    colors[2, 2, :] = ABSENT  # an inner edge along the whole height
    notched = Blocks(base.axes, colors, None, "regions", 1, "")
    height = 2 - 2 * GAP
    solid = ((3 - 2 * GAP) ** 2 - 1) * height
    found = volumes(everything(notched))
    assert found[:2] == pytest.approx([solid, solid])
    # Over the inner edge the lid keeps a flap of gap × gap: it hides nothing and shows no hole.
    assert found[2] == pytest.approx(solid + GAP**2 * height)


@pytest.mark.parametrize("groups", [(1, 1, 1), (4, 1, 1), (1, 6, 1), (4, 6, 1), (4, 2, 1), (2, 3, 4), (4, 6, 8)])
def test_each_region_is_one_solid_set_back_on_every_side(groups):
    mesh = everything(partition(SHAPE, groups))
    sides = [size / count - 2 * GAP for size, count in zip(SHAPE, groups, strict=True)]
    assert volumes(mesh) == pytest.approx(np.full(3, np.prod(groups) * np.prod(sides)))
    cells = [size // count for size, count in zip(SHAPE, groups, strict=True)]
    faces = 2 * (cells[0] * cells[1] + cells[1] * cells[2] + cells[0] * cells[2])
    assert len(mesh.triangles) == 2 * faces * np.prod(groups)


@pytest.mark.parametrize("seed", range(5))
def test_faces_stand_exactly_between_cells_that_differ(seed):
    blocks = random_blocks(seed)
    built = surface(blocks)
    spans = [np.array(one.spans) for one in blocks.axes]
    labels = built.cells.labels
    expected = 0
    for cell in np.ndindex(*blocks.colors.shape):
        if blocks.colors[cell] == ABSENT:
            continue
        for direction in range(3):
            for step in (-1, 1):
                other = list(cell)
                other[direction] += step
                if not 0 <= other[direction] < blocks.colors.shape[direction]:
                    expected += 1
                    continue
                lower, upper = sorted((cell[direction], other[direction]))
                touching = spans[direction][lower][1] == spans[direction][upper][0]
                alike = blocks.colors[tuple(other)] == blocks.colors[cell] and labels[tuple(other)] == labels[cell]
                expected += not (touching and alike)
    assert len(everything(blocks).triangles) == 2 * expected


@pytest.mark.parametrize("seed", range(5))
def test_no_face_leaves_its_cell_by_more_than_the_gap_and_faces_point_outward(seed):
    blocks = random_blocks(seed)
    built = surface(blocks)
    mesh = everything(blocks)
    places = np.array(np.unravel_index(mesh.cells, blocks.colors.shape)).T
    points = mesh.corners[mesh.triangles]
    centers = np.stack([(built.cells.starts[a] + built.cells.stops[a])[places[:, a]] / 2 for a in range(3)], axis=1)
    for direction in range(3):
        low = built.cells.starts[direction][places[:, direction]][:, None] - built.cells.gap
        high = built.cells.stops[direction][places[:, direction]][:, None] + built.cells.gap
        assert (points[:, :, direction] >= low - 1e-9).all()
        assert (points[:, :, direction] <= high + 1e-9).all()
    outward = ((points.mean(axis=1) - centers) * normals(mesh)).sum(axis=1)
    assert (outward > 0).all()
    assert (np.abs(normals(mesh)).argmax(axis=1) == mesh.facing).all()


def test_the_gap_follows_the_smallest_cell():
    wide = tuple((10.0 * start, 10.0 * stop) for start, stop in partition(SHAPE, (1, 1, 1)).axes[0].spans)
    base = partition(SHAPE, (4, 1, 1))
    first = base.axes[0]
    stretched = type(first)(first.title, wide, first.names, first.ticks, first.parts)
    blocks = Blocks((stretched, *base.axes[1:]), base.colors, None, "regions", 4, "")
    assert surface(blocks).cells.gap == pytest.approx(GAP)


def test_lines_mark_every_border_between_cells_of_a_face_once():
    lines = surface(partition((1, 2, 3), (1, 1, 1))).lines(np.ones((1, 2, 3), bool), inner=True)
    points = lines.reshape(-1, 3, 3)
    assert np.isnan(points[:, 2]).all()
    # Two cuts across z go around four sides each; one cut across y goes around four sides.
    assert len(points) == 2 * 4 + 4
    lengths = np.abs(points[:, 1] - points[:, 0]).max(axis=1)
    assert sorted(lengths.round(6)) == pytest.approx(sorted([2 - 2 * GAP] * 4 + [1 - 2 * GAP] * 6 + [3 - 2 * GAP] * 2))


def test_edges_of_a_box_are_twelve():
    edges = surface(partition((2, 3, 4), (1, 1, 1))).lines(np.ones((2, 3, 4), bool), inner=False)
    assert len(edges) == 12 * 3


@pytest.mark.parametrize("shape", [(8, 12, 16), (4, 20, 20), (1, 40, 40), (2, 4, 200)])
def test_the_wire_form_is_small(shape):
    sent = wire(partition(shape, (1, shape[1], 1)))
    assert np.prod(shape) <= 1600
    assert len(json.dumps(sent)) <= 20_000


def test_the_wire_form_carries_all_that_is_drawn():
    assert len({json.dumps(wire(blocks), sort_keys=True) for blocks in SAMPLES.values()}) == len(SAMPLES)


def test_figures_tell_what_they_show():
    blocks = partition(SHAPE, (4, 2, 1))
    shown = figure(blocks, "Group normalization")
    assert isinstance(shown, go.Figure)
    assert shown.layout.meta["alt"] == describe(blocks)
    assert "8 regions" in describe(blocks)
    assert shown.layout.title.text == "Group normalization"
    assert set(shown.data[0].hovertext[:1]) == {"sample 1, channel 1, position 1<br>region 1 of 8"}
    assert "100 % of the strongest" not in " ".join(figure(carved()).data[0].hovertext)
    assert any("% of the strongest other influence" in text for text in figure(influence()).data[0].hovertext)


def test_a_block_of_nothing_but_faded_or_absent_cells_is_no_error():
    for color in (FADED, ABSENT):
        base = partition((2, 2, 2), (1, 1, 1))
        blocks = Blocks(base.axes, np.full((2, 2, 2), color, np.uint8), (0, 0, 0), "regions", 1, "")
        assert len(figure(blocks).data[0].i) == 0


def linear(color: str) -> np.ndarray:
    """Turn #rrggbb into linear light."""
    channels = np.array([int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


TO_CONES = np.array(
    [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.6806995, 0.10739696], [0.08830246, 0.28171884, 0.62997870]]
)
TO_LAB = np.array(
    [
        [0.21045426, 0.79361779, -0.00407205],
        [1.97799850, -2.42859221, 0.45059371],
        [0.02590404, 0.78277177, -0.80867577],
    ]
)
# Machado, Oliveira & Fernandes 2009: what people without red, green or blue cones see.
SIGHTS = {
    "all cones": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "no blue": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}


def lab(color: str, sight: str = "all cones") -> np.ndarray:
    """Place a color in OKLab, as seen by somebody."""
    return TO_LAB @ np.cbrt(TO_CONES @ np.clip(SIGHTS[sight] @ linear(color), 0, 1))


@pytest.mark.parametrize("sight", SIGHTS)
def test_region_colors_can_be_told_apart(sight):
    seen = [lab(color, sight) for color in theme.REGION_COLORS]
    assert len(seen) == 12
    for one, other in pairwise(seen):
        assert np.linalg.norm(one - other) > 0.18
        assert abs(one[0] - other[0]) > 0.05
    assert min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]) > 0.06


def test_region_colors_stand_out_from_both_grounds():
    lightness = [lab(color)[0] for color in theme.REGION_COLORS]
    assert lab("#15171c")[0] + 0.2 < min(lightness)
    assert max(lightness) < lab("#fdfdfb")[0] - 0.1


def test_influence_darkens_evenly():
    lightness = np.array([lab(color)[0] for color in theme.INFLUENCE_COLORS])
    steps = -np.diff(lightness)
    assert (steps > 0.04).all()
    assert steps.max() < 2.6 * steps.min()


def test_methods_have_colors_of_their_own():
    keys = ["none", "batch_norm", "layer_norm", "weight_norm", "clip_by_norm", "filter_response_norm", "other"]
    chosen = theme.method_colors(keys)
    assert len(set(chosen.values())) == len(keys)
    assert theme.method_colors(["layer_norm"])["layer_norm"] == chosen["layer_norm"]


def test_colors_with_a_dollar_sign_never_reach_a_notebook():
    assert '"$' not in figure(SAMPLES["group lit"]).to_json()
