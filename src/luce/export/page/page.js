/* The page of an exported run: a form or a canvas, bars, temperature, set, contributions. */
"use strict";

(() => {
  const model = Luce.read(JSON.parse(document.getElementById("model").textContent));
  const { schema, classes } = model;
  const at = (id) => document.getElementById(id);
  const SHOWN = 20; // of more classes the most probable are shown

  function made(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes))
      key in element && key !== "list" ? (element[key] = value) : element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  const percent = (p) => {
    if (p > 0 && p < 0.001) return "< 0.1%";
    if (p < 1 && p > 0.999) return "> 99.9%";
    return `${(100 * p).toFixed(1)}%`;
  };
  const several = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

  // ---- what goes in ---------------------------------------------------------------------------

  const MISSING = "–";

  /** Return the field of a column, and what reads its value. */
  function field(column, id) {
    const example = model.example?.[column.name];
    const text = (type, more) => {
      const input = made("input", { id, type, value: example ?? "", autocomplete: "off", ...more });
      return [input, () => input.value];
    };
    if (column.kind === "category" && column.categories.length <= 100)
      return choice(id, column.categories, example);
    if (column.kind === "boolean") return choice(id, ["true", "false"], example);
    if (column.kind === "category") {
      const [input, read] = text("text", { list: `${id}-list` });
      const list = made("datalist", { id: `${id}-list` });
      list.append(...column.categories.slice(0, 1000).map((each) => made("option", { value: each })));
      return [made("span", {}, input, list), read];
    }
    if (column.kind === "text") {
      const area = made("textarea", { id, rows: 4, value: example ?? "" });
      return [area, () => area.value];
    }
    const plain = column.decimal === "." && !column.thousands && !column.unit;
    if (column.kind === "number" && plain) {
      const [input] = text("number", { step: "any" });
      return [input, () => (input.value === "" ? null : input.valueAsNumber)];
    }
    return text("text", {});
  }

  function choice(id, values, chosen) {
    const select = made("select", { id });
    select.append(made("option", { value: "" }, MISSING));
    select.append(...values.map((each) => made("option", { value: each }, each)));
    select.value = values.includes(chosen) ? chosen : "";
    return [select, () => select.value];
  }

  /** Build the form of a table; return what reads its row. */
  function table() {
    const readers = new Map();
    schema.columns
      .filter((column) => column.kind !== "left out")
      .forEach((column, i) => {
        const [input, read] = field(column, `field-${i}`);
        readers.set(column.name, read);
        const hint = model.hints[column.name];
        const label = made("label", { htmlFor: `field-${i}` }, column.name);
        const block = made("div", { className: "field" }, label, input);
        if (hint) {
          block.append(made("span", { className: "soft", id: `hint-${i}` }, hint));
          (input.matches("span") ? input.firstChild : input).setAttribute("aria-describedby", `hint-${i}`);
        }
        at("input").append(block);
      });
    return () => Object.fromEntries([...readers].map(([name, read]) => [name, read()]));
  }

  /** Build the form of an array: its numbers, one after the other. */
  function numbers() {
    const area = made("textarea", { id: "numbers", rows: 6, value: model.example.join(" ") });
    const label = made("label", { htmlFor: "numbers" }, `${several(schema.columns, "number")}, with blanks between`);
    at("input").append(made("div", { className: "field" }, label, area));
    return () => {
      const row = area.value.split(/[\s,;]+/).filter(Boolean).map(Number);
      if (row.length !== schema.columns || !row.every(Number.isFinite))
        throw new Error(`Give ${several(schema.columns, "number")}; there are ${row.length}.`);
      return row;
    };
  }

  /** Build the canvas of images; return what reads it. */
  function picture() {
    const paper = schema.channels === 1 && schema.mean[0] >= 0.5 ? 255 : 0;
    const scale = Math.max(1, Math.round(280 / Math.max(schema.height, schema.width)));
    const canvas = made("canvas", {
      id: "canvas", width: schema.width * scale, height: schema.height * scale, tabIndex: 0,
    });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Canvas. Draw with a pointer, or with the arrow keys: the space bar puts the pen down and lifts it.");
    const seen = made("canvas", { width: schema.width, height: schema.height, className: "seen" });
    seen.setAttribute("role", "img");
    seen.setAttribute("aria-label", "What the model sees");
    const centre = made("input", { type: "checkbox", id: "centred", checked: schema.channels === 1 });
    const file = made("input", { type: "file", id: "file", accept: "image/png,image/jpeg" });
    const clear = made("button", { type: "button" }, "Clear");
    at("input").append(
      canvas,
      made("div", { className: "row" }, clear,
        made("label", { htmlFor: "centred" }, centre, " centre the drawing")),
      made("div", { className: "field" }, made("label", { htmlFor: "file" }, "or open a picture"), file),
      made("p", { className: "soft" }, `The model sees ${schema.width} × ${schema.height} pixels:`), seen
    );
    const pad = LuceDraw.pad(canvas, { paper, change: () => update() });
    clear.addEventListener("click", () => { file.value = ""; pad.clear(); });
    file.addEventListener("change", async () => {
      if (!file.files.length) return;
      try {
        centre.checked = false;
        pad.show(await createImageBitmap(file.files[0]));
      } catch {
        at("message").textContent = "This file is no picture that the browser can read.";
      }
    });
    return () => {
      const row = LuceDraw.pixels(canvas, schema, { paper, centred: centre.checked });
      const size = schema.height * schema.width;
      const image = new ImageData(schema.width, schema.height);
      for (let i = 0; i < size; i++) {
        const colour = [0, 1, 2].map((c) => row[(schema.channels === 1 ? 0 : c) * size + i]);
        image.data.set([...colour, 255], 4 * i);
      }
      seen.getContext("2d").putImageData(image, 0, 0);
      return pad.empty ? null : row;
    };
  }

  // ---- what comes out -------------------------------------------------------------------------

  const temperature = () => 10 ** Number(at("temperature").value);
  const coverage = () => Number(at("coverage").value) / 100;

  /** Draw the bars; `limits` are the thresholds of labels. Return the most probable. */
  function bars(probabilities, set, limits) {
    const order = [...probabilities.keys()];
    const best = order.reduce((a, b) => (probabilities[b] > probabilities[a] ? b : a));
    const said = (k) => (limits ? probabilities[k] >= limits[k] : k === best);
    let shown = order;
    if (order.length > SHOWN)
      shown = order.sort((a, b) => probabilities[b] - probabilities[a]).slice(0, SHOWN);
    at("bars").replaceChildren(
      ...shown.map((k) => {
        const bar = made("span", { className: "bar" });
        bar.style.width = `${100 * probabilities[k]}%`;
        const track = made("div", { className: "track" }, bar);
        if (limits) {
          const limit = made("span", { className: "limit", title: `on from ${percent(limits[k])}` });
          limit.style.left = `${100 * limits[k]}%`;
          track.append(limit);
        }
        const cells = [
          made("th", { scope: "row" }, made("bdi", {}, String(classes[k]))),
          made("td", {}, track),
          made("td", { className: "value" }, percent(probabilities[k])),
        ];
        if (set) cells.push(made("td", {}, set[k] ? "✓ in" : "out"));
        return made("tr", { className: said(k) ? "best" : "" }, ...cells);
      })
    );
    const hidden = order.length - shown.length;
    at("hidden").textContent = hidden ? `${hidden} less probable ${limits ? "labels" : "classes"} are not shown.` : "";
    return best;
  }

  function added(encoded, best) {
    const all = Luce.contributions(model, encoded);
    at("added").hidden = all === null || schema.kind === "image";
    if (at("added").hidden) return;
    const select = at("class");
    const k = select.value === "" ? best : Number(select.value);
    const rows = all.map(({ name, adds }) => ({ name, add: adds[k] }));
    rows.sort((a, b) => Math.abs(b.add) - Math.abs(a.add));
    const most = Math.max(...rows.map(({ add }) => Math.abs(add)), 1e-12);
    at("features").replaceChildren(
      ...rows.slice(0, SHOWN).map(({ name, add }) => {
        const bar = made("span", { className: add < 0 ? "bar against" : "bar" });
        bar.style.width = `${(50 * Math.abs(add)) / most}%`;
        bar.style.marginLeft = add < 0 ? `${50 - (50 * -add) / most}%` : "50%";
        const sign = add < 0 ? "−" : "+";
        return made("tr", {},
          made("th", { scope: "row" }, made("bdi", {}, name)),
          made("td", { className: "track" }, bar),
          made("td", { className: "value" }, `${sign}${Math.abs(add).toFixed(2)}`));
      })
    );
    at("of-class").textContent = `for ${classes[k]}`;
  }

  let read = null;

  function update() {
    if (read === null) return;
    at("t").textContent = temperature().toFixed(2);
    at("message").textContent = "";
    let row;
    try {
      row = read();
    } catch (error) {
      at("message").textContent = error.message;
      return;
    }
    at("answer").hidden = row === null;
    at("nothing").hidden = row !== null;
    if (row === null) return;
    const encoded = Luce.encode(schema, row);
    const probabilities = Luce.probabilities(model, encoded, temperature());
    let set = null;
    if (model.scores) {
      // Promised for the probabilities as the run calibrated them, whatever the slider says.
      const own = Luce.probabilities(model, encoded);
      set = model.thresholds
        ? Luce.holding(own, model, coverage())
        : Luce.conformal(own, model.scores, coverage());
      at("c").textContent = `${at("coverage").value}%`;
      const inside = classes.filter((_, k) => set[k]);
      at("set").textContent = inside.length
        ? `Set: ${inside.slice(0, SHOWN).join(", ")}${inside.length > SHOWN ? ", …" : ""}`
        : model.thresholds
          ? "Set: no label."
          : "Set: none. No class is likely enough: the row is unlike those of training.";
    }
    // At another temperature the same labels are on: their thresholds go along.
    const limits = model.thresholds?.map((p) => {
      const power = model.temperature / temperature();
      return 1 / (1 + ((1 - p) / p) ** power);
    });
    const best = bars(probabilities, set, limits);
    at("said").textContent = limits
      ? classes.filter((_, k) => probabilities[k] >= limits[k]).join(", ") || "no label is on"
      : `${classes[best]}, ${percent(probabilities[best])}`;
    added(encoded, best);
  }

  at("temperature").min = Math.min(-1, Math.log10(model.temperature));
  at("temperature").max = Math.max(1, Math.log10(model.temperature));
  at("temperature").value = Math.log10(model.temperature);
  at("reset").addEventListener("click", () => {
    at("temperature").value = Math.log10(model.temperature);
    update();
  });
  for (const name of ["conformal", "in-set", "set-column"]) at(name).hidden = !model.scores;
  at("class").append(
    made("option", { value: "" }, `the most probable ${model.thresholds ? "label" : "class"}`),
    ...classes.map((each, k) => made("option", { value: k }, String(each)))
  );
  const build = { table, array: numbers, image: picture };
  read = build[schema.kind]();
  at("form").addEventListener("input", update);
  at("form").addEventListener("submit", (event) => event.preventDefault());
  update();
})();
