// From weights to pixels: colours, the map over the image, regions and points.

const EVEN = [0.1, 100]; // the ends of the scale "times even attention"

// Position on the colour scale, from 0 to 1; weights below 0 count by their size.
function position(weight, map, scale) {
  const size = Math.abs(weight);
  if (scale === "layer") return Math.min(1, size / map.top);
  const [low, high] = EVEN.map(Math.log);
  const at = (Math.log(size / map.even) - low) / (high - low);
  return Math.max(0, Math.min(1, at));
}

// The map as pixels, one for each of its own. `alpha` is that of what the query sees.
function mapPixels(map, scale, alpha = 255, dark = 255) {
  const [height, width] = map.size;
  const data = new ImageData(width, height);
  for (let i = 0; i < map.weights.length; i++) {
    const seen = map.reach[i] > 0;
    const from = 3 * Math.round(255 * position(map.weights[i], map, scale));
    const colour = seen ? COLOURS.subarray(from, from + 3) : [24, 24, 24];
    data.data.set([...colour, seen ? alpha : dark], 4 * i);
  }
  return data;
}

function paintMap(canvas, map, scale) {
  [canvas.height, canvas.width] = map.size;
  // Pixels come and go one by one: the canvas stays in memory.
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.putImageData(mapPixels(map, scale), 0, 0);
}

// Image in gray, so that colours are those of the map.
function grayOf(image) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < data.data.length; i += 4) {
    const [r, g, b] = data.data.subarray(i, i + 3);
    data.data.fill(Math.round(0.299 * r + 0.587 * g + 0.114 * b), i, i + 3);
  }
  context.putImageData(data, 0, 0);
  return canvas;
}

class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
  }

  // Begin with the image; `size` is that of the image in the model's pixels.
  begin(image, size) {
    const { canvas, context } = this;
    const ratio = window.devicePixelRatio || 1;
    canvas.style.aspectRatio = `${size[1]} / ${size[0]}`;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round((canvas.width * size[0]) / size[1]);
    this.unit = canvas.width / size[1]; // canvas pixels for a pixel of the model's image
    this.line = ratio;
    context.imageSmoothingEnabled = size[1] >= canvas.width / 3;
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
  }

  overlay(map, scale, opacity) {
    const small = document.createElement("canvas");
    [small.height, small.width] = map.size;
    const pixels = mapPixels(map, scale, Math.round(255 * opacity), Math.round(200 * opacity));
    small.getContext("2d").putImageData(pixels, 0, 0);
    const side = map.stride * this.unit;
    this.context.imageSmoothingEnabled = false;
    this.context.drawImage(small, 0, 0, small.width * side, small.height * side);
  }

  // Lines twice, dark and wide under light and thin, so that they show on any colour.
  stroke(path, colour = "#ffffff", width = 1.5, dash = []) {
    const { context, line } = this;
    context.setLineDash(dash.map((d) => d * line));
    for (const [style, extra] of [["#000000", 2], [colour, 0]]) {
      context.strokeStyle = style;
      context.lineWidth = (width + extra) * line;
      context.stroke(path);
    }
    context.setLineDash([]);
  }

  // The query's own patch.
  mark({ row, column }, stride) {
    const side = stride * this.unit;
    const path = new Path2D();
    path.rect(column * side, row * side, side, side);
    const [x, y] = [(column + 0.5) * side, (row + 0.5) * side];
    if (side < 14 * this.line) {
      // Too small to be found: a cross around it.
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        path.moveTo(x + dx * side, y + dy * side);
        path.lineTo(x + dx * (side + 10 * this.line), y + dy * (side + 10 * this.line));
      }
    }
    this.stroke(path, "#ffffff", 2);
  }

  // The outline of pixels of the map that are inside.
  outline(inside, [height, width], stride, colour, dash) {
    const side = stride * this.unit;
    const path = new Path2D();
    const at = (y, x) => y >= 0 && x >= 0 && y < height && x < width && inside[y * width + x] > 0;
    for (let y = 0; y <= height; y++) {
      for (let x = 0; x <= width; x++) {
        if (at(y, x) !== at(y - 1, x)) {
          path.moveTo(x * side, y * side);
          path.lineTo((x + 1) * side, y * side);
        }
        if (at(y, x) !== at(y, x - 1)) {
          path.moveTo(x * side, y * side);
          path.lineTo(x * side, (y + 1) * side);
        }
      }
    }
    this.stroke(path, colour, 1.2, dash);
  }

  // Keys as circles, whose area is their weight; that of `most` is the largest.
  points(points, most, stride) {
    const side = stride * this.unit;
    const largest = this.canvas.width / Math.max(24, 2.4 * Math.sqrt(points.length));
    const { context } = this;
    for (const { y, x, weight } of points) {
      const radius = Math.max(1.2 * this.line, largest * Math.sqrt(Math.abs(weight) / most));
      context.beginPath();
      context.arc(x * side, y * side, radius, 0, 2 * Math.PI);
      context.fillStyle = "rgb(213 94 0 / 75%)";
      context.fill();
      context.lineWidth = this.line;
      context.strokeStyle = "#000000";
      context.stroke();
    }
  }
}

// Centres of a query's keys on the map, with their weights; of all heads the mean of each group.
function pointsOf(rows, head, query) {
  const { count, boxes } = rows.said;
  const perGroup = rows.heads / boxes.groups;
  const tokens = rows.agents ? 0 : rows.tokens;
  const sets = head < 0
    ? [...Array(boxes.groups).keys()].map((g) => [...Array(perGroup).keys()].map((h) => g * perGroup + h))
    : [[head]];
  return sets.flatMap((heads) => {
    const found = rows.boxes(heads[0], query);
    return Array.from({ length: count - tokens }, (_, k) => ({
      number: k,
      y: (found[4 * k] + found[4 * k + 2]) / 2,
      x: (found[4 * k + 1] + found[4 * k + 3]) / 2,
      weight: heads.reduce((sum, h) => sum + rows.weight(h, query, k + tokens), 0) / heads.length,
    }));
  });
}

function ticksOf(map, scale) {
  if (scale === "even") return [["≤ 0.1×", 0], ["1×", 1 / 3], ["10×", 2 / 3], ["≥ 100×", 1]];
  return [["0", 0], [short(map.top / 2), 0.5], [`≥ ${short(map.top)}`, 1]];
}

function short(number) {
  return Number(number.toPrecision(3)).toString();
}
