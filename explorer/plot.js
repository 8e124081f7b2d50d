// @ts-check
// One Plotly figure on a Streamlit page, kept alive: every change goes through Plotly.react or Plotly.extendTraces.
// The page imports this module once; Python sends only data. `theme.json` beside it holds every color and style.

const [look, Plotly] = await Promise.all([fetch(new URL("theme.json", import.meta.url)).then((r) => r.json()), library()]);

/** @type {WeakMap<Element, Plot>} one plot per mounted component */
const plots = new WeakMap();
/** @type {Map<string, {camera: any, zoom: number, members: Set<Plot>, waiting?: number}>} plots that are looked at from the same side */
const groups = new Map();
const webgl = document.createElement("canvas").getContext("webgl");
const software = /swiftshader|llvmpipe|softpipe|basic render/i.test(renderer(webgl));
const sheet = new CSSStyleSheet();
sheet.replaceSync(`
  .normcore-plot { width: 100%; border-radius: var(--st-base-radius); outline: none; }
  .normcore-plot:focus-visible { box-shadow: 0 0 0 2px var(--st-primary-color); }
  .normcore-plot .nsewdrag, .normcore-plot canvas { touch-action: none; }
  .normcore-plot-note { display: grid; place-items: center; height: 100%; color: var(--st-gray-text-color); }`);
document.adoptedStyleSheets.push(sheet);

/** What draws in three dimensions here, in its own words. */
function renderer(/** @type {WebGLRenderingContext | null} */ gl) {
  const named = gl?.getExtension("WEBGL_debug_renderer_info");
  return String(named ? gl?.getParameter(named.UNMASKED_RENDERER_WEBGL) : gl?.getParameter(gl.RENDERER));
}

/** Load plotly.js beside this module, whatever other copy the page may have. */
function library() {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("plotly.js", import.meta.url).href;
    script.onload = () => resolve(/** @type {any} */ (window).Plotly);
    script.onerror = () => reject(new Error("plotly.js could not be loaded"));
    document.head.append(script);
  });
}

/** Streamlit calls this on every change of data or theme; the answer is called when the component goes away. */
export default function show(/** @type {any} */ component) {
  const parent = component.parentElement;
  const plot = plots.get(parent) ?? new Plot(parent);
  plots.set(parent, plot);
  plot.receive(component);
  // Streamlit also calls this when a newer message overtook an older one: only a plot off the page is gone.
  return () => setTimeout(() => plot.node.isConnected || plot.remove());
}

/** All plots of one change are drawn in one frame: between two frames a browser without a graphics card composes them all. */
const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));
/** Plots out of sight wait until those on the screen are drawn and the browser is idle. */
const idle = () => new Promise((resolve) => requestIdleCallback(resolve, { timeout: 1000 }));

class Plot {
  constructor(/** @type {Element} */ parent) {
    this.node = /** @type {any} */ (document.createElement("div"));
    this.node.className = "normcore-plot";
    this.node.tabIndex = 0;
    this.node.setAttribute("role", "img");
    parent.append(this.node);
    this.queue = Promise.resolve();
    this.live = { run: "", count: 0 };
    this.zoom = 1;
    this.pointed = this.known = false; // whether a pointer is over the picture, and Plotly knows what lies below it
    this.watchPointer();
    this.node.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.turn(event));
    this.observer = new ResizeObserver(() => this.queue = this.queue.then(() => this.resize()));
    this.observer.observe(this.node);
  }

  receive(/** @type {any} */ component) {
    this.component = component;
    const turn = this.queue.then(nextFrame).then(() => this.inSight() || idle());
    this.queue = turn.then(() => this.draw(component)).catch((error) => console.error(error));
  }

  inSight() {
    const { top, bottom } = this.node.getBoundingClientRect();
    return bottom >= 0 && top <= innerHeight;
  }

  async draw(/** @type {any} */ component) {
    const data = component.data;
    if (!data || !this.node.isConnected || (component !== this.component && !data.live)) return;
    this.node.setAttribute("aria-label", data.alt);
    this.node.style.height = `${data.height}px`;
    const colors = this.colors();
    const frame = JSON.stringify([data.blocks?.palette, data.height, data.group, colors]);
    const drawing = frame + JSON.stringify([data.figure, data.blocks]);
    const live = data.live;
    const fresh = live && live.run !== this.live.run;
    if (fresh) this.live = { run: live.run, count: 0 };
    if (drawing !== this.drawing || fresh) {
      const figure = data.blocks ? blockFigure(data.blocks, look.blocks) : JSON.parse(data.figure);
      if (live) this.carryOver(figure.data.slice(0, live.x.length), fresh);
      const refilled = data.blocks && frame === this.frame && this.refill(figure);
      if (!refilled && !(await this.react(figure, data, colors))) return;
      Object.assign(this, { drawing, frame });
    }
    if (live) await this.append(live);
  }

  /** Draw a figure in place; camera, zoom and legend stay as the visitor left them. */
  async react(/** @type {any} */ figure, /** @type {any} */ data, /** @type {any} */ colors) {
    const solid = Boolean(figure.layout.scene);
    if (solid && !webgl) {
      this.node.innerHTML = '<p class="normcore-plot-note">3-D needs WebGL; the flat view below says the same.</p>';
      return false;
    }
    this.join(solid ? data.group : null);
    const layout = { ...figure.layout, template: { layout: look.layout }, uirevision: "keep", height: data.height };
    if (solid) layout.scene = this.seen(layout.scene);
    const buttons = [["toImage", solid ? "resetCameraDefault3d" : "resetScale2d"]];
    // Four points a pixel look best; without a graphics card they take four times as long as one.
    const plotGlPixelRatio = software ? Math.min(2, devicePixelRatio) : 2;
    const config = { displaylogo: false, plotGlPixelRatio, modeBarButtons: buttons, scrollZoom: solid };
    await Plotly.react(this.node, paint(figure.data, colors), paint(layout, colors), config);
    if (!this.listening) this.listen();
    this.refine(this.node._fullLayout.scene?._scene);
    this.pointAgain();
    return true;
  }

  /** Give the scene the numbers of another block picture of the same look, and say whether that was possible: Plotly
   * knows nothing of a trace that was empty. Plotly.react would do it too, but it reads and checks the complete figure
   * first, which takes longer than drawing it. */
  refill(/** @type {any} */ figure) {
    const { data, layout, _fullData, _fullLayout } = this.node;
    const { _scene: scene } = _fullLayout.scene;
    const empty = (/** @type {any[]} */ traces) => traces.map((trace) => !trace.x.length);
    if (scene.glplot.contextLost || !same(empty(figure.data), empty(data))) return false;
    figure.data.forEach((/** @type {any} */ trace, /** @type {number} */ i) => {
      const numbers = Object.fromEntries(NUMBERS.filter((name) => name in trace).map((name) => [name, trace[name]]));
      Object.assign(data[i], numbers);
      Object.assign(_fullData[i], numbers, !trace.cells && { _length: trace.x.length });
    });
    // The camera as it is now, also in the middle of a drag, of which nobody has heard yet.
    const seen = this.seen(figure.layout.scene, scene.getCamera());
    for (const into of [layout.scene, _fullLayout.scene]) fill(into, seen);
    scene.plot(_fullData, _fullLayout, layout);
    this.refine(scene);
    this.node.emit("plotly_afterplot");
    this.pointAgain();
    return true;
  }

  /** What Plotly has no option for in space: without it lines flicker on faces and catch clicks, and a pointer over a
   * picture that has just become smaller asks for a triangle that is gone. */
  refine(/** @type {any} */ scene) {
    if (!scene?.glplot) return;
    // A nearer horizon spends the depth buffer, often only 16 bits, on what is there.
    const first = scene.glplot.zFar !== 30;
    scene.glplot.zFar = 30;
    if (first) {
      this.pickOnDemand(scene.glplot);
      keepWhatStays(scene.glplot);
    }
    for (const { linePlot, mesh } of Object.values(scene.traces)) {
      if (linePlot) linePlot.drawPick = () => {};
      if (!mesh) continue;
      const { pick, drawPick, update } = Object.getPrototypeOf(mesh);
      mesh.drawPick = (/** @type {any} */ camera) => this.pointed && drawPick.call(mesh, camera);
      const triangle = (/** @type {any} */ at) => at.value[0] + 256 * at.value[1] + 65536 * at.value[2];
      mesh.pick = (/** @type {any} */ at) => (at && triangle(at) < mesh.cells.length ? pick.call(mesh, at) : null);
      // The same colors again are not painted again.
      mesh.update = (/** @type {any} */ next) => {
        const colors = JSON.stringify(next.colormap);
        update.call(mesh, colors === mesh.painted ? { ...next, colormap: null } : next);
        mesh.painted = colors;
      };
    }
    if (first) scene.glplot.redraw();
  }

  /** Plotly draws every picture twice, the second time for the pointer, and reads that back while all else waits. */
  pickOnDemand(/** @type {any} */ glplot) {
    const { gl } = glplot;
    const read = gl.readPixels;
    gl.readPixels = (/** @type {any[]} */ ...into) => {
      if (!this.pointed) return;
      read.apply(gl, into);
      this.known = true;
      this.pointAgain();
      if (this.waiting) glplot.redraw();
    };
  }

  colors() {
    const style = getComputedStyle(this.node);
    const names = { $ink: "text", $muted: "gray-text", $line: "border", $ground: "background", $accent: "primary" };
    return Object.fromEntries(Object.entries(names).map(([k, name]) => [k, style.getPropertyValue(`--st-${name}-color`)]));
  }

  resize() {
    const { clientWidth, _fullLayout: layout } = this.node;
    if (!layout || !clientWidth || Math.abs(clientWidth - layout.width) <= 1) return;
    return Plotly.relayout(this.node, { autosize: true, ...this.aspect("scene.") });
  }

  remove() {
    this.join(null);
    this.observer.disconnect();
    Plotly.purge(this.node);
    this.node.remove();
  }

  // Cameras --------------------------------------------------------------------------------------------------------

  /** A scene from where the visitor looks at it. */
  seen(/** @type {any} */ scene, camera = this.camera) {
    this.shape = scene.aspectratio;
    return { ...scene, ...(camera && { camera }), ...this.aspect() };
  }

  /** The shape of the picture, smaller where the plot is narrow, times what the visitor zoomed. */
  aspect(prefix = "") {
    if (!this.shape) return {};
    const size = this.zoom * this.fit();
    const { x, y, z } = this.shape;
    return { [`${prefix}aspectratio`]: { x: x * size, y: y * size, z: z * size } };
  }

  /** How much smaller a narrow plot must be drawn, so that the block as first seen and its labels stay inside. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.node;
    const { x, y } = this.shape ?? { x: 1, y: 1 };
    return Math.min(1, ((width || 1000) - 88) / (0.55 * height * (0.88 * x + 0.48 * y)));
  }

  join(/** @type {string | null} */ name) {
    if (name === this.group) return;
    groups.get(this.group ?? "")?.members.delete(this);
    this.group = name;
    if (!name) return;
    const group = groups.get(name) ?? { camera: this.camera, zoom: this.zoom, members: new Set() };
    groups.set(name, group);
    group.members.add(this);
    this.camera = group.camera ?? this.camera;
    this.zoom = group.zoom;
  }

  /** Remember where the visitor looks from, and let the other plots of the group follow, once a frame. */
  moved(/** @type {any} */ change) {
    const camera = change["scene.camera"] ?? this.camera;
    const aspect = change["scene.aspectratio"];
    const zoom = aspect && this.shape ? aspect.x / this.shape.x / this.fit() : this.zoom;
    if (same(camera, this.camera) && Math.abs(zoom / this.zoom - 1) < 1e-3) return;
    Object.assign(this, { camera, zoom });
    const group = groups.get(this.group ?? "");
    if (!group) return;
    Object.assign(group, { camera, zoom });
    if (group.waiting) return;
    group.waiting = requestAnimationFrame(() => {
      group.waiting = 0;
      for (const plot of group.members) {
        if (same([plot.camera, plot.zoom], [group.camera, group.zoom]) || !plot.node._fullLayout) continue;
        Object.assign(plot, { camera: group.camera, zoom: group.zoom });
        Plotly.relayout(plot.node, { "scene.camera": group.camera, ...plot.aspect("scene.") });
      }
    });
  }

  turn(/** @type {KeyboardEvent} */ event) {
    const [sideways, up] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key] ?? [0, 0];
    const scene = this.node._fullLayout?.scene;
    if (!scene || !(sideways || up)) return;
    event.preventDefault();
    const camera = structuredClone(this.camera ?? scene.camera);
    const { x, y, z } = camera.eye;
    const distance = Math.hypot(x, y, z);
    const around = Math.atan2(y, x) + sideways * 0.15;
    const above = Math.min(1.5, Math.max(-1.5, Math.asin(z / distance) + up * 0.15));
    const flat = distance * Math.cos(above);
    camera.eye = { x: flat * Math.cos(around), y: flat * Math.sin(around), z: distance * Math.sin(above) };
    Plotly.relayout(this.node, { "scene.camera": camera });
  }

  // Clicks ---------------------------------------------------------------------------------------------------------

  listen() {
    this.listening = true;
    this.node.on("plotly_relayouting", (/** @type {any} */ change) => this.moved(change));
    this.node.on("plotly_relayout", (/** @type {any} */ change) => this.moved(change));
    // Flat plots say "click" once a click. In 3-D Plotly says it on every frame while a button is down, or never when
    // it was down for less than a frame: there the browser's own click counts, with what the next frame finds below.
    this.node.on("plotly_hover", (/** @type {any} */ event) => this.waiting && this.pick(event.points[0]));
    this.node.on("plotly_click", (/** @type {any} */ event) => {
      if (this.waiting || !this.node._fullLayout.scene) this.pick(event.points[0]);
    });
    this.node.on("plotly_unhover", () => (this.waiting &&= !this.known));
  }

  watchPointer() {
    let down = { x: 0, y: 0 };
    const far = (/** @type {MouseEvent} */ event) => Math.hypot(event.x - down.x, event.y - down.y) > 4;
    this.node.addEventListener("pointerenter", () => {
      this.pointed = true;
      this.node._fullLayout?.scene?._scene.glplot?.update({});
    });
    this.node.addEventListener("pointerleave", () => (this.pointed = this.known = false));
    this.node.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
      down = event;
      this.node.focus({ preventScroll: true });
    }, true);
    // The wheel scrolls the page until a plot is in use.
    this.node.addEventListener("wheel", (/** @type {WheelEvent} */ event) => {
      if (!event.ctrlKey && document.activeElement !== this.node) event.stopPropagation();
    }, { capture: true, passive: true });
    this.node.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
      this.pointer = event;
      if (far(event)) this.waiting = false;
    }, true);
    this.node.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const scene = this.node._fullLayout?.scene?._scene;
      if (event.target !== scene?.glplot?.canvas || far(event)) return;
      this.waiting = true;
      if (this.known) scene.glplot.redraw();
    }, true);
  }

  pick(/** @type {any} */ { curveNumber: trace, pointNumber }) {
    this.waiting = false;
    const { cells, size } = this.node.data[trace];
    // A heat map counts by row and column.
    const map = Array.isArray(pointNumber);
    const point = map ? pointNumber[0] : pointNumber;
    const flat = cells?.[point];
    const solid = cells ? [Math.floor(flat / size[2] / size[1]), Math.floor(flat / size[2]) % size[1], flat % size[2]] : null;
    const cell = map ? [...pointNumber, 0] : solid;
    this.component.setTriggerValue("pick", { trace, point, cell });
  }

  /** Bring the hover label back that a redraw took away. */
  pointAgain() {
    const at = this.pointer;
    if (!at || !this.node.matches(":hover") || at.buttons) return;
    const target = document.elementFromPoint(at.clientX, at.clientY);
    // Only a change of place counts as a move.
    for (const clientX of [at.clientX + 1, at.clientX]) {
      target?.dispatchEvent(new MouseEvent("mousemove", { bubbles: true, clientX, clientY: at.clientY }));
    }
  }

  // Live runs ------------------------------------------------------------------------------------------------------

  /** Keep the points drawn so far when only the look of a live figure changes. */
  carryOver(/** @type {any[]} */ traces, /** @type {boolean} */ fresh) {
    traces.forEach((trace, i) => {
      const held = fresh ? null : this.node.data?.[i];
      Object.assign(trace, { x: held ? [...held.x] : [], y: held ? [...held.y] : [] });
    });
  }

  /** Append new points; skip those known already, and ask for those that never came. */
  async append(/** @type {any} */ { run, start, x, y }) {
    const have = this.live.count;
    const known = have - start;
    if (known < 0) {
      this.component.setTriggerValue("have", { run, count: have });
      return;
    }
    const total = start + Math.max(0, ...x.map((/** @type {any[]} */ points) => points.length));
    if (total <= have) return;
    const cut = (/** @type {any[][]} */ series) => series.map((points) => points.slice(known));
    await Plotly.extendTraces(this.node, { x: cut(x), y: cut(y) }, [...x.keys()]);
    this.live.count = total;
    this.pointAgain();
  }
}

/** Put the page's colors in the place of words such as "$ink". */
function paint(/** @type {any} */ value, /** @type {Record<string, string>} */ colors) {
  if (typeof value === "string") return value in colors ? colors[value] : value;
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value) || value.bdata) return value;
  if (Array.isArray(value)) return typeof value.at(-1) === "number" ? value : value.map((part) => paint(part, colors));
  /** @type {any} */
  const painted = {};
  for (const name of Object.keys(value)) painted[name] = paint(value[name], colors);
  return painted;
}

/** Spare a scene two things that wait for the graphics card with every picture. */
function keepWhatStays(/** @type {any} */ { gl, axes }) {
  // Plotly asks whether its buffers are still there; they are as long as the canvas is.
  gl.isBuffer = () => !gl.isContextLost();
  // With new ticks the lines along the axes are taken down and put up anew, also where none of them is seen.
  const { _lines: lines, lineEnable, gridEnable, zeroEnable, lineTickEnable } = axes;
  if ([lineEnable, gridEnable, zeroEnable, lineTickEnable].flat().some(Boolean)) return;
  lines.dispose = () => {};
  Object.defineProperty(axes, "_lines", { get: () => lines, set() {} });
}

/** Write the parts of one object over those of another, and leave what else is there. */
function fill(/** @type {any} */ into, /** @type {any} */ parts) {
  for (const [name, part] of Object.entries(parts)) {
    if (part !== null && typeof part === "object" && !Array.isArray(part)) fill((into[name] ??= {}), part);
    else into[name] = part;
  }
}

function same(/** @type {any} */ one, /** @type {any} */ other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

// The block picture ------------------------------------------------------------------------------------------------
// The same faces and lines, in the same order, as normcore/figures/geometry.py.

const NUMBERS = ["x", "y", "z", "i", "j", "k", "intensity", "cells", "size", "hovertext"];
const ABSENT = 254;
const FADED = 255;
const AXES = [0, 1, 2];
const SIDES = [0, 1];

/** @typedef {[number, number]} Side an axis and its lower (0) or upper (1) end */
/** @typedef {(cell: number) => boolean} Choice which cells are meant */

/** Build the complete figure of a block picture from what Python sent. */
function blockFigure(/** @type {any} */ sent, /** @type {any} */ look) {
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
  const share = color === FADED ? 0 : Math.round((100 * color) / (look.blocks.strengths - 1));
  const itself = AXES.every((axis) => surface.place(cell, axis) === sent.picked?.[axis]);
  const belongs = sent.palette === "regions"
    ? `region ${surface.labels[cell] + 1} of ${sent.count}`
    : itself ? "the element itself" : `${share} % of the strongest other influence`;
  const where = AXES.map((axis) => sent.names[axis][surface.place(cell, axis)]).join(", ");
  return [where, belongs, sent.note].filter(Boolean).join("<br>");
}
