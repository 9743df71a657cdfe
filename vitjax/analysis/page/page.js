// What is asked, and by whom: pointer, touch and keys change the state, and all panes follow.

const state = {
  image: 0,
  query: { y: 0.5, x: 0.5 },
  kept: { y: 0.5, x: 0.5 }, // by a click, a tap or a key: what asks when the pointer is elsewhere
  scale: "even",
  opacity: 0.75,
  keys: true,
  views: new Map(),
  changed() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      for (const pane of panes) pane.draw();
      const token = document.getElementById("token");
      token.setAttribute("aria-pressed", "token" in this.query);
    });
  },
};
const panes = SAID.models.map((_, model) => new Pane(state, model));

async function viewOf(image, model) {
  const number = SAID.views.findIndex(
    (v) => v.image === SAID.images[image] && v.model === SAID.models[model]);
  if (!state.views.has(number)) {
    const picture = new Image();
    picture.src = SAID.views[number].picture;
    const [buffer] = await Promise.all([inflate(number), picture.decode()]);
    state.views.set(number, [new View(SAID.views[number], buffer), picture]);
  }
  return state.views.get(number);
}

async function showImage(image) {
  state.image = image;
  for (const [model, pane] of panes.entries()) await pane.show(...(await viewOf(image, model)));
  const tokens = panes.some((p) => p.view.layers.some((l) => l.asks.tokens));
  document.getElementById("token").hidden = !tokens;
  if (!tokens && "token" in state.query) state.query = state.kept = { y: 0.5, x: 0.5 };
  state.changed();
}

function ask(query, keep) {
  state.query = query;
  if (keep) state.kept = query;
  state.changed();
}

function placeOf(event, canvas) {
  const box = canvas.getBoundingClientRect();
  const share = (at, from, side) => Math.max(0, Math.min(0.999999, (at - from) / side));
  return { y: share(event.clientY, box.top, box.height), x: share(event.clientX, box.left, box.width) };
}

// Move the query by one of its layer's patches.
function move(pane, [rows, columns]) {
  const { asks } = pane;
  if ("token" in state.query || !asks.height) return ask({ y: 0.5, x: 0.5 }, true);
  const { row, column } = asks.cell(state.query);
  const to = (at, by, side, axis) => {
    const cell = Math.max(0, Math.min(side - 1, at + by * asks.step));
    return Math.min(0.999999, ((cell + 0.5) * asks.stride) / asks.size[axis]);
  };
  return ask({ y: to(row, rows, asks.height, 0), x: to(column, columns, asks.width, 1) }, true);
}

for (const pane of panes) {
  const { canvas } = pane.stage;
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "touch") ask(placeOf(event, canvas), false);
  });
  canvas.addEventListener("pointerleave", () => ask(state.kept, false));
  canvas.addEventListener("click", (event) => ask(placeOf(event, canvas), true));
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key in steps) move(pane, steps[event.key]);
    else if (event.key === "t" && !document.getElementById("token").hidden) toggleToken();
    else return;
    event.preventDefault();
  });
}

function toggleToken() {
  ask("token" in state.query ? { y: 0.5, x: 0.5 } : { token: 0 }, true);
}

document.getElementById("token").addEventListener("click", toggleToken);
document.getElementById("scale").addEventListener("change", (event) => {
  state.scale = event.target.value;
  state.changed();
});
document.getElementById("opacity").addEventListener("input", (event) => {
  state.opacity = event.target.value / 100;
  state.changed();
});
document.getElementById("keys").addEventListener("change", (event) => {
  state.keys = event.target.checked;
  state.changed();
});
new ResizeObserver(() => state.changed()).observe(document.querySelector("main"));

document.querySelector("h1").textContent = document.title;
document.body.dataset.models = SAID.models.length;
const chooser = document.querySelector(".images");
chooser.hidden = SAID.images.length < 2;
SAID.images.forEach((name, i) => {
  const label = document.createElement("label");
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: "image", checked: !i });
  radio.addEventListener("change", () => showImage(i));
  const thumb = Object.assign(new Image(), { src: SAID.views.find((v) => v.image === name).picture, alt: "" });
  label.append(radio, thumb, name);
  chooser.append(label);
});
const levels = Math.min(...SAID.views.flatMap((v) => v.layers.map((l) => l.levels - l.zero)));
document.querySelector(".numbers").textContent = `Weights are rounded, to steps that are fine near 0: `
  + `by at most 1/${levels} of the largest of their layer.`;

await showImage(0);
window.look = { state, panes, ask, map: (model, ...rest) => panes[model].view.map(...rest) };
