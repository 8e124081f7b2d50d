// @ts-check
// The block picture in the browser: the same faces and lines, in the same order, as normcore/figures/geometry.py.

const ABSENT = 254;
const FADED = 255;
const AXES = [0, 1, 2];
const SIDES = [0, 1];

/** @typedef {[number, number]} Side an axis and its lower (0) or upper (1) end */
/** @typedef {(cell: number) => boolean} Choice which cells are meant */

/** Build the complete figure of a block picture from what Python sent. */
export function blockFigure(/** @type {any} */ sent, /** @type {any} */ look) {
  const colors = Uint8Array.from(atob(sent.colors), (letter) => letter.charCodeAt(0));
  const surface = new Surface(sent, colors);
  const levels = look.levels[sent.palette];
  const lit = (/** @type {number} */ cell) => colors[cell] < ABSENT;
  const faded = (/** @type {number} */ cell) => colors[cell] === FADED;
  const solid = surface.mesh(lit, false);
  const ghost = surface.mesh(faded, true);
  const text = Array.from(colors, (color, cell) => hoverText(sent, surface, cell, color));
  const named = (/** @type {any} */ mesh) => ({ ...mesh, hovertext: Array.from(mesh.cells, (cell) => text[cell]) });
  const data = [
    {
      ...look.lit,
      ...named(solid),
      intensity: solid.facing.map((/** @type {number} */ axis, /** @type {number} */ i) => axis * levels + (colors[solid.cells[i]] % levels)),
      cmin: -0.5,
      cmax: 3 * levels - 0.5,
      colorscale: look.scales[sent.palette],
    },
    { ...look.faded, ...named(ghost), intensity: ghost.facing },
    { ...look.lines, ...points(surface.lines(lit, true)) },
    { ...look.edges, ...points(surface.lines(faded, false)) },
    { ...look.picked, ...points(sent.picked ? surface.outline(sent.picked) : []) },
  ];
  return { data, layout: { ...look.layout, scene: { ...look.layout.scene, ...sent.scene } } };
}

class Surface {
  constructor(/** @type {any} */ sent, /** @type {Uint8Array} */ colors) {
    this.sent = sent;
    this.size = sent.spans.map((/** @type {any[]} */ spans) => spans.length);
    this.stride = [this.size[1] * this.size[2], this.size[2], 1];
    this.labels = Array.from(colors, (_, cell) => AXES.reduce((sum, axis) => sum + sent.parts[axis][this.place(cell, axis)], 0));
    this.fused = AXES.map((axis) => SIDES.map((side) => Array.from(colors, (color, cell) => {
      const other = this.next(cell, [axis, side]);
      if (other < 0 || color === ABSENT || colors[other] !== color || this.labels[other] !== this.labels[cell]) return false;
      const [lower, upper] = side ? [cell, other] : [other, cell];
      return Math.abs(this.span(lower, axis)[1] - this.span(upper, axis)[0]) < 1e-6;
    })));
    this.open = this.fused.map((sides) => sides.map((fused) => Array.from(colors, (color, cell) => color !== ABSENT && !fused[cell])));
  }

  place(/** @type {number} */ cell, /** @type {number} */ axis) {
    return Math.floor(cell / this.stride[axis]) % this.size[axis];
  }

  span(/** @type {number} */ cell, /** @type {number} */ axis) {
    return this.sent.spans[axis][this.place(cell, axis)];
  }

  /** The cell next to a cell, or -1 beyond the border. */
  next(/** @type {number} */ cell, /** @type {Side} */ [axis, side]) {
    const place = this.place(cell, axis) + (side ? 1 : -1);
    return place < 0 || place >= this.size[axis] ? -1 : cell + (side ? this.stride[axis] : -this.stride[axis]);
  }

  /** Whether a face goes on, in the same plane, beyond one of its edges. */
  flush(/** @type {number} */ cell, /** @type {Side} */ face, /** @type {Side} */ edge) {
    return this.fused[edge[0]][edge[1]][cell] && this.open[face[0]][face[1]][this.next(cell, edge)];
  }

  /** The coordinate of one edge of a face: set back, flush, or meeting an inner corner. */
  reach(/** @type {number} */ cell, /** @type {Side} */ face, /** @type {Side} */ edge) {
    const [axis, side] = edge;
    const gap = this.sent.gap;
    const back = !this.fused[axis][side][cell] ? gap : this.flush(cell, face, edge) ? 0 : -gap;
    return this.span(cell, axis)[side] + (side ? -back : back);
  }

  plane(/** @type {number} */ cell, /** @type {Side} */ [axis, side]) {
    return this.span(cell, axis)[side] + (side ? -this.sent.gap : this.sent.gap);
  }

  /** Two triangles for every open side of the cells shown; with `hull`, not between two of them. */
  mesh(/** @type {Choice} */ shown, /** @type {boolean} */ hull) {
    /** @type {any} */
    const mesh = { x: [], y: [], z: [], i: [], j: [], k: [], cells: [], facing: [], size: this.size };
    const corner = [0, 0, 0];
    for (const axis of AXES) for (const side of SIDES) {
      /** @type {Side} */
      const face = [axis, side];
      const [first, second] = AXES.filter((other) => other !== axis);
      const turned = (axis === 1) === Boolean(side);
      this.open[axis][side].forEach((open, cell) => {
        if (!open || !shown(cell) || (hull && this.next(cell, face) >= 0 && shown(this.next(cell, face)))) return;
        const base = mesh.x.length;
        corner[axis] = this.plane(cell, face);
        for (const [one, two] of [[0, 0], [1, 0], [1, 1], [0, 1]]) {
          corner[first] = this.reach(cell, face, [first, one]);
          corner[second] = this.reach(cell, face, [second, two]);
          mesh.x.push(corner[0]), mesh.y.push(corner[1]), mesh.z.push(corner[2]);
        }
        for (const half of [1, 2]) {
          mesh.i.push(base);
          mesh.j.push(base + half + (turned ? 1 : 0));
          mesh.k.push(base + half + (turned ? 0 : 1));
          mesh.cells.push(cell);
          mesh.facing.push(axis);
        }
      });
    }
    return mesh;
  }

  /** The borders of the cells on the faces if `inner`, else the edges of the solids; NaN points separate lines. */
  lines(/** @type {Choice} */ shown, /** @type {boolean} */ inner) {
    /** @type {number[][]} */
    const points = [];
    for (const axis of AXES) for (const side of SIDES) for (const across of AXES) {
      if (across !== axis) for (const end of SIDES) this.runs([axis, side], [across, end], shown, inner, points);
    }
    return points;
  }

  runs(/** @type {Side} */ face, /** @type {Side} */ edge, /** @type {Choice} */ shown, /** @type {boolean} */ inner, /** @type {number[][]} */ points) {
    const [axis, side] = face;
    const [across, end] = edge;
    const run = 3 - axis - across;
    const lift = inner ? this.sent.lift : 0;
    const drawn = (/** @type {number} */ cell) => {
      if (!this.open[axis][side][cell] || !shown(cell)) return false;
      return this.flush(cell, face, edge) ? inner && end === 0 : !inner && axis < across;
    };
    const level = (/** @type {number} */ cell) => this.reach(cell, face, edge);
    const joined = (/** @type {number} */ cell, /** @type {number} */ before) =>
      before >= 0 && drawn(before) && this.flush(cell, face, [run, 0]) && level(cell) === level(before);
    for (let p = 0; p < this.size[axis]; p++) for (let q = 0; q < this.size[across]; q++) for (let r = 0; r < this.size[run]; r++) {
      const cell = p * this.stride[axis] + q * this.stride[across] + r * this.stride[run];
      if (!drawn(cell)) continue;
      for (const point of SIDES) {
        const beside = this.next(cell, [run, point]);
        if (point ? beside >= 0 && drawn(beside) && joined(beside, cell) : joined(cell, beside)) continue;
        const at = [0, 0, 0];
        at[axis] = this.plane(cell, face) + (side ? lift : -lift);
        at[across] = level(cell);
        at[run] = this.reach(cell, face, [run, point]);
        points.push(at);
        if (point) points.push([NaN, NaN, NaN]);
      }
    }
  }

  /** The twelve edges of one cell. */
  outline(/** @type {number[]} */ place) {
    const cell = AXES.reduce((sum, axis) => sum + place[axis] * this.stride[axis], 0);
    const ends = AXES.map((axis) => SIDES.map((side) => {
      const back = (this.fused[axis][side][cell] ? 0 : this.sent.gap) - 2 * this.sent.lift;
      return this.span(cell, axis)[side] + (side ? -back : back);
    }));
    /** @type {number[][]} */
    const points = [];
    for (const run of AXES) for (const one of SIDES) for (const two of SIDES) {
      const [first, second] = AXES.filter((axis) => axis !== run);
      for (const end of SIDES) {
        const at = [0, 0, 0];
        at[run] = ends[run][end];
        at[first] = ends[first][one];
        at[second] = ends[second][two];
        points.push(at);
      }
      points.push([NaN, NaN, NaN]);
    }
    return points;
  }
}

function points(/** @type {number[][]} */ list) {
  return { x: list.map((point) => point[0]), y: list.map((point) => point[1]), z: list.map((point) => point[2]) };
}

/** Say in words where a cell is and what it belongs to. */
function hoverText(/** @type {any} */ sent, /** @type {Surface} */ surface, /** @type {number} */ cell, /** @type {number} */ color) {
  const share = color === FADED ? 0 : Math.round((100 * color) / (ABSENT - 1));
  const belongs = sent.palette === "regions"
    ? `region ${surface.labels[cell] + 1} of ${sent.count}`
    : `${share} % of the strongest influence`;
  const where = AXES.map((axis) => sent.names[axis][surface.place(cell, axis)]).join(", ");
  return [where, belongs, sent.note].filter(Boolean).join("<br>");
}
