// One model: its image, the grid of its heads, rollout and distances.

const SVG = "http://www.w3.org/2000/svg"; // a name, from which nothing is fetched
const KINDS = {
  pixels: "every place is a key",
  patches: "keys are reduced patches",
  regions: "keys are regions or windows",
  points: "keys are sampled points",
  agents: "keys are agents",
};

class Pane {
  constructor(state, model) {
    this.state = state;
    this.model = model;
    const part = document.getElementById("pane").content.cloneNode(true);
    this.root = part.querySelector(".pane");
    this.find = (selector) => this.root.querySelector(selector);
    this.stage = new Stage(this.find(".stage"));
    this.find("h2").textContent = SAID.models[model];
    document.querySelector("main").append(part);
    this.find(".grid").addEventListener("keydown", (event) => this.walk(event));
  }

  // Show another image; what was chosen stays.
  async show(view, image) {
    const fresh = !this.view;
    this.view = view;
    this.image = image;
    this.gray = grayOf(image);
    const { note, classes, layers } = view.said;
    this.find(".note").textContent = note;
    this.find(".note").hidden = !note;
    if (fresh) this.pick = { layer: layers.length - 1, head: -1 };
    this.find(".answer").hidden = !classes.length;
    this.find(".classes").replaceChildren(...classes.map(([name, odds]) => {
      const item = element("li", "", "");
      const bar = element("span", "bar-of-class", "");
      bar.style.setProperty("--share", odds);
      item.append(element("span", "class", name), element("span", "odds", percent(odds)), bar);
      return item;
    }));
    this.build();
    this.chart();
  }

  build() {
    this.tiles = new Map();
    const rollout = this.find(".rollout");
    const { none, each } = this.view.said.rollout;
    if (none) {
      rollout.replaceChildren(element("p", "hint", none));
    } else {
      const what = [[null, `of what the head reads: ${this.view.said.reads}`], [true, "of the query"]];
      rollout.replaceChildren(...what.slice(0, each ? 2 : 1).map(([own, text]) => {
        const figure = element("figure", "", "");
        figure.append(this.tile({ rollout: own ? "query" : "head" }, `Rollout ${text}`),
          element("figcaption", "", text));
        return figure;
      }));
    }
    this.find(".grid").replaceChildren(...this.view.layers.map((layer, i) => this.row(layer, i)));
  }

  row(layer, i) {
    const row = element("div", "row", "");
    row.setAttribute("role", "row");
    const { keys, kind, step, top } = layer.rows.said;
    const label = element("div", "row-head", "");
    label.setAttribute("role", "rowheader");
    const kept = step > 1 ? `, each ${ordinal(step)} query kept` : "";
    label.append(element("strong", "", layer.name),
      element("span", "", `${keys[1]}×${keys[2]}, ${KINDS[kind]}${kept}`),
      element("span", "top", `colours end at ${short(top)}`));
    const heads = element("div", "heads", "");
    for (let head = -1; head < layer.heads; head++) {
      const far = layer.distances;
      const away = head >= 0 && far ? `, looks ${Math.round(far[head])} pixels far` : "";
      const name = head < 0 ? "mean of heads" : `head ${head}${away}`;
      const tile = this.tile({ layer: i, head }, `${layer.name}, ${name}`);
      tile.setAttribute("role", "gridcell");
      heads.append(tile);
    }
    row.append(label, heads);
    return row;
  }

  tile(pick, name) {
    const button = element("button", "tile", "");
    button.type = "button";
    button.title = name;
    button.setAttribute("aria-label", name);
    if (pick.head === -1) button.classList.add("mean");
    button.append(document.createElement("canvas"));
    button.addEventListener("click", () => this.choose(pick));
    this.tiles.set(keyOf(pick), button);
    return button;
  }

  choose(pick) {
    this.pick = pick;
    this.state.changed();
  }

  // Arrow keys in the grid: left and right within a layer, up and down between layers.
  walk(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const step = steps[event.key];
    if (!step || !("layer" in this.pick)) return;
    event.preventDefault();
    const clip = (value, low, high) => Math.max(low, Math.min(high, value));
    const layer = clip(this.pick.layer + step[0], 0, this.view.layers.length - 1);
    const head = clip(this.pick.head + step[1], -1, this.view.layers[layer].heads - 1);
    this.choose({ layer, head });
    this.tiles.get(keyOf(this.pick)).focus();
  }

  mapOf(pick) {
    const { query } = this.state;
    if (pick.rollout) return this.view.rollout(pick.rollout === "query" ? query : null);
    return this.view.map(pick.layer, pick.head, query);
  }

  // The queries of what is shown, which the arrow keys move along.
  get asks() {
    return this.pick.rollout ? this.view.rolledAsks : this.view.layers[this.pick.layer].asks;
  }

  draw() {
    if (!this.view) return; // still being unpacked
    const { scale } = this.state;
    for (const [key, button] of this.tiles) {
      const map = this.mapOf(JSON.parse(key));
      button.disabled = !map;
      if (map) paintMap(button.firstChild, map, scale);
      const chosen = key === keyOf(this.pick);
      button.classList.toggle("chosen", chosen);
      button.setAttribute("aria-pressed", chosen);
      button.tabIndex = chosen || this.pick.rollout ? 0 : -1;
    }
    this.drawStage(this.mapOf(this.pick));
    for (const dot of this.root.querySelectorAll(".dot")) {
      dot.classList.toggle("chosen", dot.dataset.key === keyOf(this.pick));
    }
  }

  drawStage(map) {
    const { scale, opacity, keys, query } = this.state;
    const layer = this.view.layers[this.pick.layer];
    this.stage.begin(map ? this.gray : this.image, this.view.said.size);
    const name = layer
      ? `${layer.name}, ${this.pick.head < 0 ? "mean of heads" : `head ${this.pick.head}`}`
      : `Rollout of ${this.pick.rollout === "head" ? "what the head reads" : "the query"}`;
    this.find(".what").textContent = name;
    if (map) {
      this.stage.overlay(map, scale, opacity);
      if (layer && keys) this.drawKeys(layer, map);
      this.legend(map, scale);
    }
    const places = !("token" in query) && this.asks.height && this.pick.rollout !== "head";
    if (places) this.stage.mark(this.asks.cell(query), this.asks.stride);
    const told = this.tell(map, layer);
    this.find(".told").textContent = told;
    this.stage.canvas.setAttribute("aria-label",
      `${this.view.said.image} with attention of ${name}. ${told} Arrow keys move the query.`);
  }

  drawKeys(layer, map) {
    const { rows } = layer;
    const { kind, most } = rows.said;
    if (kind === "regions") this.stage.outline(map.reach, map.size, layer.stride, "#56B4E9");
    if (kind !== "points" && kind !== "agents") return;
    const points = pointsOf(rows, this.pick.head, map.index);
    if (kind === "agents") {
      const first = points.reduce((a, b) => (b.weight > a.weight ? b : a));
      const reach = rows.agents.reach(this.pick.head, first.number).subarray(rows.agents.tokens);
      this.stage.outline(reach, map.size, layer.stride, "#56B4E9", [6, 4]);
    }
    this.stage.points(points, most, layer.stride);
  }

  // A sentence of what is seen, also for those who do not see it.
  tell(map, layer) {
    if (!map) {
      const has = layer && layer.asks.tokens ? "asks by tokens alone" : "has no such query";
      return `This layer ${has}; choose another${layer?.asks.tokens ? ", or let the token ask" : ""}.`;
    }
    const { query } = this.state;
    let best = 0;
    map.weights.forEach((w, i) => { if (w > map.weights[best]) best = i; });
    const width = map.size[1];
    const from = this.pick.rollout === "head" ? "What the head reads"
      : "token" in query ? `Token ${query.token}`
      : `Row ${this.asks.cell(query).row}, column ${this.asks.cell(query).column}`;
    const most = `most at row ${Math.floor(best / width)}, column ${best % width}: `
      + `${short(map.weights[best])} (${short(map.weights[best] / map.even)}× even)`;
    const inside = map.weights.reduce((a, b) => a + b, 0);
    const rest = 1 - inside - map.tokens;
    const elsewhere = [
      map.tokens > 0.0005 && `${percent(map.tokens)} on class and register tokens`,
      layer && rest > 0.005 && `${percent(rest)} outside of the image`,
    ].filter(Boolean);
    return `${from}: ${[most, ...elsewhere].join("; ")}.${layer ? this.tellKeys(layer) : ""}`;
  }

  tellKeys(layer) {
    const { kind, most } = layer.rows.said;
    if (!this.state.keys) return "";
    if (kind === "regions") return " Blue line: what the query sees.";
    const circles = ` Circles: ${kind}, by weight; the largest of this layer is ${short(most)}.`;
    if (kind === "points") return circles;
    if (kind === "agents") return `${circles} Dashed: regions of the largest agent.`;
    return "";
  }

  legend(map, scale) {
    const bar = this.find(".bar");
    const pixels = new ImageData(256, 1);
    for (let i = 0; i < 256; i++) pixels.data.set([...COLOURS.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    bar.getContext("2d").putImageData(pixels, 0, 0);
    const ticks = ticksOf(map, scale);
    const unit = scale === "even"
      ? `1× = evenly over all that the query sees: here a weight of ${short(map.even)} a pixel of the map`
      : "weight of a pixel of the map; the scale is the same for all heads and queries of this layer";
    bar.setAttribute("aria-label", `Colours from ${ticks[0][0]} to ${ticks.at(-1)[0]}: ${unit}`);
    this.find(".ticks").replaceChildren(...ticks.map(([text, at]) => {
      const tick = element("span", "", text);
      tick.style.left = `${100 * at}%`;
      return tick;
    }));
    this.find(".unit").textContent = unit;
  }

  // Mean attention distance of every head, over depth.
  chart() {
    const layers = this.view.layers.map((l, i) => [i, l]).filter(([, l]) => l.distances);
    const holder = this.find(".distances");
    if (!layers.length) return holder.replaceChildren(element("p", "hint", "No layer asks from places."));
    const [width, height, left, bottom] = [460, 190, 46, 34];
    const far = Math.max(...layers.flatMap(([, l]) => l.distances)) * 1.05 || 1;
    const x = (i) => left + ((i + 0.5) / this.view.layers.length) * (width - left - 6);
    const y = (d) => height - bottom - (d / far) * (height - bottom - 8);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    const range = (l) => `${l.name} ${Math.round(Math.min(...l.distances))} to ${Math.round(Math.max(...l.distances))}`;
    svg.setAttribute("aria-label", "Mean attention distance of the heads, in pixels of the image: "
      + layers.map(([, l]) => range(l)).join("; "));
    for (const part of [0, 0.5, 1]) {
      const value = (far / 1.05) * part;
      svg.append(shape("line", { x1: left, x2: width - 6, y1: y(value), y2: y(value), class: "rule" }),
        shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(Math.round(value))));
    }
    const every = Math.ceil(layers.length / 14);
    for (const [i, layer] of layers) {
      if (i % every === 0) svg.append(shape("text", { x: x(i), y: height - bottom + 14, "text-anchor": "middle" }, String(i)));
      layer.distances.forEach((d, head) => {
        const key = keyOf({ layer: i, head });
        const dot = shape("circle", { cx: x(i), cy: y(d), r: 4, class: "dot", "data-key": key });
        dot.append(shape("title", {}, `${layer.name}, head ${head}: ${Math.round(d)} pixels`));
        dot.addEventListener("click", () => this.choose({ layer: i, head }));
        svg.append(dot);
      });
    }
    svg.append(shape("text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, "layer, from 0"),
      shape("text", { transform: `translate(12 ${(height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "pixels"));
    holder.replaceChildren(svg, element("p", "hint",
      "Mean distance from a query to where it looks, in pixels of the image; a circle is a head."));
  }
}

function keyOf(pick) {
  return JSON.stringify(pick);
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function ordinal(n) {
  return ["", "", "second", "third"][n] ?? `${n}th`;
}
