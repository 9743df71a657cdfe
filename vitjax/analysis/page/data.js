// What was packed, unpacked: weights of a query's keys, spread over the map's pixels.

const SAID = JSON.parse(document.getElementById("said").textContent);
const COLOURS = toBytes(SAID.colours);
const TYPES = { uint8: Uint8Array, uint32: Uint32Array, float32: Float32Array };

function toBytes(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function inflate(number) {
  const bytes = toBytes(document.getElementById(`arrays-${number}`).textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function open(buffer, { at, length, type }) {
  return new TYPES[type](buffer, at, length);
}

// The weight that each of the 256 integers stands for.
function weightsOf({ most, levels, zero }) {
  return Float64Array.from({ length: 256 }, (_, i) => {
    const size = (i - zero) / (levels - zero);
    return most * Math.sign(size) * size * size;
  });
}

// Queries on a map, of which each `step`-th along both sides is kept.
class Queries {
  constructor({ queries: [tokens, height, width], step, kept }, stride, size) {
    Object.assign(this, { tokens, height, width, step, kept, stride, size });
  }

  // Number among those that are kept, of a token or of a place (y, x) in shares of the image; -1 if
  // there is none.
  index(query) {
    if ("token" in query) return query.token < this.tokens ? query.token : -1;
    if (!this.height) return -1;
    const { row, column } = this.cell(query);
    const at = (i) => Math.floor((i - Math.floor(this.step / 2)) / this.step);
    return this.tokens + at(row) * this.kept[1] + at(column);
  }

  // Row and column, on the whole map, of the kept query nearest to a place.
  cell({ y, x }) {
    const near = (share, side, axis) => {
      const pixel = Math.min(Math.floor((share * this.size[axis]) / this.stride), side - 1);
      const number = Math.min(Math.floor(pixel / this.step), this.kept[axis] - 1);
      return Math.floor(this.step / 2) + number * this.step;
    };
    return { row: near(y, this.height, 0), column: near(x, this.width, 1) };
  }
}

// Attention of one layer. `dense` is what `Rows.dense` is in Python.
class Rows {
  constructor(said, buffer) {
    this.said = said;
    [this.tokens, this.height, this.width] = said.keys;
    this.heads = said.heads;
    this.length = this.tokens + this.height * this.width;
    this.weights = open(buffer, said.weights);
    this.value = weightsOf(said);
    this.perHead = this.weights.length / said.heads;
    if (said.boxes) {
      this.table = open(buffer, said.boxes.table);
      this.which = open(buffer, said.boxes.which);
    }
    this.agents = said.agents && new Rows(said.agents, buffer);
  }

  weight(head, query, key) {
    return this.value[this.weights[head * this.perHead + query * this.said.count + key]];
  }

  // Where a query stands, as row and column.
  stand(query) {
    const { kept, step, queries } = this.said;
    const number = query - queries[0];
    const at = (i) => Math.floor(step / 2) + i * step;
    return [at(Math.floor(number / kept[1])), at(number % kept[1])];
  }

  // Boxes of the keys after the tokens, [top, left, bottom, right] each.
  boxes(head, query) {
    const { groups, count, around } = this.said.boxes;
    const own = this.which[this.which.length > 1 ? query : 0];
    const group = Math.floor(head / (this.heads / groups));
    const from = 4 * count * (own * groups + group);
    const found = this.table.subarray(from, from + 4 * count);
    if (!around) return found;
    const [row, column] = this.stand(query);
    return found.map((edge, i) => edge + (i % 2 ? column : row));
  }

  dense(head, query) {
    const out = new Float64Array(this.length);
    this.add(out, head, query, 1);
    return out;
  }

  mean(query) {
    const out = new Float64Array(this.length);
    for (let head = 0; head < this.heads; head++) this.add(out, head, query, 1 / this.heads);
    return out;
  }

  add(out, head, query, factor) {
    const { count } = this.said;
    if (this.agents) {
      for (let a = 0; a < count; a++) {
        const share = factor * this.weight(head, query, a);
        if (share) this.agents.add(out, head, a, share);
      }
    } else if (!this.said.boxes) {
      for (let k = 0; k < count; k++) out[k] += factor * this.weight(head, query, k);
    } else {
      const boxes = this.boxes(head, query);
      for (let t = 0; t < this.tokens; t++) out[t] += factor * this.weight(head, query, t);
      for (let k = this.tokens; k < count; k++) {
        const share = factor * this.weight(head, query, k);
        if (share) this.spread(out, boxes, k - this.tokens, share);
      }
    }
  }

  // Add a key's weight to the pixels under its box, by the share of the box in each.
  spread(out, boxes, number, weight) {
    const [top, left, bottom, right] = boxes.subarray(4 * number, 4 * number + 4);
    const each = weight / ((bottom - top) * (right - left));
    const rows = Math.min(Math.ceil(bottom), this.height);
    const columns = Math.min(Math.ceil(right), this.width);
    for (let y = Math.max(0, Math.floor(top)); y < rows; y++) {
      const high = Math.min(bottom, y + 1) - Math.max(top, y);
      for (let x = Math.max(0, Math.floor(left)); x < columns; x++) {
        const wide = Math.min(right, x + 1) - Math.max(left, x);
        out[this.tokens + y * this.width + x] += each * high * wide;
      }
    }
  }

  // 1 where a query has a key; by way of agents it sees everything.
  reach(head, query) {
    const out = new Float64Array(this.length).fill(this.said.boxes && !this.agents ? 0 : 1);
    if (!this.said.boxes || this.agents) return out;
    out.fill(1, 0, this.tokens);
    const groups = this.said.boxes.groups;
    const heads = head < 0 ? [...Array(groups).keys()].map((g) => (g * this.heads) / groups) : [head];
    for (const one of heads) {
      const boxes = this.boxes(one, query);
      for (let k = 0; k < boxes.length / 4; k++) this.spread(out, boxes, k, 1);
    }
    return out.map((share) => (share > 0 ? 1 : 0));
  }
}

// One image as one model sees it.
class View {
  constructor(said, buffer) {
    this.said = said;
    this.layers = said.layers.map((layer) => ({
      ...layer,
      rows: new Rows(layer, buffer),
      asks: new Queries(layer, layer.stride, said.size),
    }));
    if (!said.rollout.none) {
      const last = said.layers.at(-1);
      this.rolled = open(buffer, said.rollout.maps);
      this.rolledValue = weightsOf(said.rollout);
      this.rolledAsks = new Queries(said.rollout, last.stride, said.size);
    }
  }

  // Weights of a head's map, of the mean of heads (-1), or null if the layer has no such query.
  map(layer, head, query) {
    const { rows, asks } = this.layers[layer];
    const index = asks.index(query);
    if (index < 0) return null;
    const all = head < 0 ? rows.mean(index) : rows.dense(head, index);
    const reach = rows.reach(head, index);
    const sum = (values) => values.reduce((a, b) => a + b, 0);
    const tokens = sum(all.subarray(0, rows.tokens));
    return {
      size: [rows.height, rows.width],
      stride: this.layers[layer].stride,
      weights: all.subarray(rows.tokens),
      reach: reach.subarray(rows.tokens),
      even: 1 / sum(reach),
      top: this.layers[layer].top,
      tokens,
      index,
    };
  }

  // Rollout of a query of the last layer, or with null of what the head reads.
  rollout(query) {
    if (!this.rolled) return null;
    const { size, stride, most } = this.said.rollout;
    const index = query ? this.rolledAsks.index(query) : -1;
    if (query && index < 0) return null;
    const pixels = size[0] * size[1];
    const whole = this.rolled.subarray((index + 1) * pixels, (index + 2) * pixels);
    return {
      size, stride, top: most, even: 1 / pixels, tokens: 0, index,
      weights: Float64Array.from(whole, (i) => this.rolledValue[i]),
      reach: new Float64Array(pixels).fill(1),
    };
  }
}
