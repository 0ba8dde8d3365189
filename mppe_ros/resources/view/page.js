// Draws the frames of #data: picture, 3D scene, top view, depth over time; a slider goes through them.
// Points are the camera frame's, m: x right, y down, z ahead. Plots show them as (x, z, -y).
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const {bones, cameras, frames, film} = data;
const byId = (id) => document.getElementById(id);
const image = document.querySelector("#picture img"), note = document.querySelector("#picture p");
const slider = document.querySelector("input"), button = document.querySelector("button");
const caption = document.querySelector("output");

const TEXT = "#c4cad4", GRID = "#3a404b", PANEL = "#20242c";
const PLOTS = {displayModeBar: false, responsive: true};
const LAYOUT = {
  paper_bgcolor: PANEL, plot_bgcolor: PANEL, font: {color: TEXT, size: 12},
  margin: {l: 50, r: 10, t: 26, b: 38}, showlegend: false, uirevision: "kept", hovermode: "closest",
};
const axis = (title, more) => ({title: {text: title}, gridcolor: GRID, zerolinecolor: GRID, ...more});

const shown = (points) => points.map((p) => p && [p[0], p[2], -p[1]]);
const columns = (points) => [0, 1, 2].map((i) => points.map((p) => (p ? p[i] : null)));
const lines3d = (points, colour, width, more) => {
  const [x, y, z] = columns(points);
  return {type: "scatter3d", mode: "lines", x, y, z, line: {color: colour, width},
          hoverinfo: "skip", ...more};
};

// The camera: its four viewing rays, as far as half a metre.
const frustum = (camera) => {
  const corner = (u, v) => [(u - camera.cx) / camera.fx * 0.5, (v - camera.cy) / camera.fy * 0.5, 0.5];
  const [a, b, c, d] = [corner(0, 0), corner(camera.width, 0), corner(camera.width, camera.height),
                        corner(0, camera.height)];
  const o = [0, 0, 0];
  return lines3d(shown([o, a, b, o, c, d, o, null, b, c, null, d, a]), "#e8b04b", 3, {name: "camera"});
};

// Each person's successive roots; people without an id have no past.
const paths = new Map();
frames.forEach((frame, index) => frame.people.forEach((person) => {
  if (!person.id || !person.root) return;
  const path = paths.get(`${frame.image}#${person.id}`) || paths.set(
    `${frame.image}#${person.id}`, {id: person.id, colour: person.colour, at: []}).get(
    `${frame.image}#${person.id}`);
  path.at.push({index, time: frame.time, root: person.root, sigma: person.sigma});
}));
const allPaths = [...paths.values()];
const everyone = frames.flatMap((frame) => frame.people.filter((person) => person.root));

const range = (values, margin) =>
  values.length ? [Math.min(...values) - margin, Math.max(...values) + margin] : [-2, 2];
// Robust: a few wild results must not shrink the rest.
const middle = (values) => {
  const sorted = [...values].sort((a, b) => a - b), cut = Math.floor(sorted.length * 0.01);
  return sorted.slice(cut, sorted.length - cut || undefined);
};
const xs = range([0, ...middle(everyone.map((p) => p.root[0]))], 1);
const zs = range([0, ...middle(everyone.map((p) => p.root[2]))], 1);
const ups = range(middle(everyone.flatMap((p) => p.joints.filter((j) => j).map((j) => -j[1]))), 0.3);

function personTraces(person) {
  const joints = shown(person.joints);
  const ends = bones.flatMap(([a, b]) => (joints[a] && joints[b] ? [joints[a], joints[b], null] : []));
  const known = joints.filter((j) => j);
  const traces = [
    lines3d(ends, person.colour, 7, {name: person.label}),
    {...lines3d(known, person.colour, 0), mode: "markers", hoverinfo: "text", text: person.label,
     marker: {size: 3, color: person.colour}},
  ];
  if (known.length) {
    const top = known.reduce((a, b) => (b[2] > a[2] ? b : a));
    traces.push({type: "scatter3d", mode: "text", x: [top[0]], y: [top[1]], z: [top[2] + 0.2],
                 text: [person.label], textfont: {color: person.colour, size: 13}, hoverinfo: "skip"});
  }
  return traces;
}

function drawScene(frame, index) {
  const past = allPaths.map((path) => lines3d(
    shown(path.at.filter((p) => p.index <= index).map((p) => p.root)), path.colour, 2, {opacity: 0.6}));
  const camera = cameras[frame.camera];
  Plotly.react("scene", [
    ...(camera ? [frustum(camera)] : []), ...past, ...frame.people.flatMap(personTraces),
  ], {
    ...LAYOUT, margin: {l: 0, r: 0, t: 0, b: 0},
    scene: {
      aspectmode: "data", camera: {eye: {x: -0.9, y: -1.5, z: 0.8}},
      xaxis: axis("x, m", {range: xs}), yaxis: axis("z (ahead), m", {range: zs}),
      zaxis: axis("up, m", {range: [Math.min(ups[0], -0.5), Math.max(ups[1], 0.5)]}),
    },
  }, PLOTS);
}

function drawFloor(frame) {
  const lines = allPaths.map((path) => ({
    mode: "lines", x: path.at.map((p) => p.root[0]), y: path.at.map((p) => p.root[2]), name: `#${path.id}`,
    line: {color: path.colour, width: 1}, opacity: 0.6, hoverinfo: "name",
  }));
  const here = frame.people.filter((p) => p.root);
  Plotly.react("floor", [...lines, {
    mode: "markers+text", x: here.map((p) => p.root[0]), y: here.map((p) => p.root[2]),
    text: here.map((p) => p.label), textposition: "middle right", hoverinfo: "text",
    textfont: {color: TEXT}, marker: {size: 11, color: here.map((p) => p.colour)},
  }, {
    mode: "markers", x: [0], y: [0], marker: {symbol: "triangle-down", size: 14, color: "#e8b04b"},
    hoverinfo: "text", text: "camera",
  }], {
    ...LAYOUT, title: {text: "from above", font: {size: 13}},
    xaxis: axis("x, m", {range: xs}), yaxis: axis("z (ahead), m", {range: zs, scaleanchor: "x"}),
  }, PLOTS);
}

const position = (frame, index) => (film ? frame.time : index);

function drawDepth(frame, index) {
  const bands = allPaths.flatMap((path) => {
    const t = path.at.map((p) => position(p, p.index)), z = path.at.map((p) => p.root[2]);
    const low = path.at.map((p, i) => z[i] - (p.sigma || 0)), high = path.at.map((p, i) => z[i] + (p.sigma || 0));
    return [
      {x: [...t, ...t.toReversed()], y: [...high, ...low.toReversed()], fill: "toself", mode: "lines",
       line: {width: 0}, fillcolor: path.colour, opacity: 0.15, hoverinfo: "skip"},
      {x: t, y: z, mode: "lines", name: `#${path.id}`, line: {color: path.colour, width: 2}},
    ];
  });
  const loose = frames.flatMap((f, i) => f.people.filter((p) => !p.id && p.root).map((p) => ({
    t: position(f, i), z: p.root[2], colour: p.colour})));
  Plotly.react("depth", [...bands, {
    mode: "markers", x: loose.map((p) => p.t), y: loose.map((p) => p.z), hoverinfo: "x+y",
    marker: {size: 5, color: loose.map((p) => p.colour)},
  }], {
    ...LAYOUT, title: {text: "depth, with one standard deviation", font: {size: 13}},
    xaxis: axis(film ? "time, s" : "image"), yaxis: axis("z, m", {rangemode: "tozero"}),
    shapes: [{type: "line", x0: position(frame, index), x1: position(frame, index), y0: 0, y1: 1,
              yref: "paper", line: {color: TEXT, width: 1}}],
  }, PLOTS);
}

async function show(index) {
  const frame = frames[index];
  image.hidden = !frame.picture;
  if (frame.picture) image.src = frame.picture;
  note.textContent = frame.picture ? "" : "no picture";
  const count = frame.people.length === 1 ? "1 person" : `${frame.people.length} people`;
  caption.textContent =
    `${frame.image} #${frame.frame}` + (film ? `   ${frame.time.toFixed(2)} s` : "") + `   ${count}`;
  drawScene(frame, index);
  drawFloor(frame);
  drawDepth(frame, index);
  document.body.dataset.shown = String(index);
}

let timer = null;
function stop() {
  clearTimeout(timer);
  timer = null;
  button.textContent = "Play";
}
function step() {
  const index = (Number(slider.value) + 1) % frames.length;
  slider.value = String(index);
  show(index);
  const next = frames[(index + 1) % frames.length];
  const seconds = film ? next.time - frames[index].time : 1;
  timer = setTimeout(step, Math.min(Math.max(seconds, 0.03), 1) * 1000);
}
button.onclick = () => {
  if (timer !== null) return stop();
  button.textContent = "Stop";
  step();
};
slider.oninput = () => { stop(); show(Number(slider.value)); };
slider.max = String(frames.length - 1);
button.disabled = frames.length < 2;
if (frames.length) show(0);
else note.textContent = "no images in this result";
document.body.dataset.ready = String(frames.length);
