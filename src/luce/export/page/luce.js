/* Luce in plain JavaScript: a row as it is → numbers → logits → probabilities.
 *
 *   Luce.read(model)                 the model of a page, with its arrays unpacked, once
 *   Luce.encode(schema, row)         a row → Float32Array, as Python's schema encodes it
 *   Luce.logits(model, encoded)      → Float64Array, one number for each class
 *   Luce.softmax(logits, temperature)   → Float64Array of probabilities
 *   Luce.sigmoids(logits, temperature)  → the same of labels that do not exclude each other
 *   Luce.probabilities(model, encoded, temperature)   → those of the model, of whichever kind
 *   Luce.contributions(model, encoded)  of a linear model: what each column adds to each logit
 *   Luce.conformal(probabilities, scores, coverage)   → booleans, which classes are in the set
 *   Luce.holding(probabilities, model, coverage)      → booleans, which labels are in the set
 *
 * A row of a table is an object, {column: text, number, boolean or null}; one of an array is a list
 * of numbers; an image is a list of bytes, channels × height × width.
 *
 * This file is whole: nothing is loaded, and it defines one name, `Luce`. Node can `require` it.
 */
"use strict";

const Luce = (() => {
  const FLOAT32_MAX = 3.4028234663852886e38;
  const FARTHEST = 1e18;

  // ---- arrays ---------------------------------------------------------------------------------

  const TYPES = {
    float32: Float32Array,
    float64: Float64Array,
    int32: Int32Array,
    uint8: Uint8Array,
  };

  /** Return a packed array, {dtype, shape, data: base64 of little-endian numbers}, as a typed one. */
  function unpack({ dtype, shape, data }) {
    const text = atob(data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const array = new TYPES[dtype](bytes.buffer);
    array.shape = shape;
    return array;
  }

  /** Return a model as a page holds it with every packed array as a typed one. */
  function read(value) {
    if (Array.isArray(value)) return value.map(read);
    if (value === null || typeof value !== "object") return value;
    if (typeof value.data === "string" && value.dtype in TYPES) return unpack(value);
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, read(each)]));
  }

  // ---- columns of tables ----------------------------------------------------------------------

  const MISSING = new Set(
    ("?|.|-|--|---|–|—|#n/a n/a|na|n/a|n.a.|nan|-nan|nat|null|(null)|none|missing|<na>|\\n|#na|" +
      "#n/a|#null!|#value!|#div/0!|#ref!|#name?|#num!|1.#ind|-1.#ind|1.#qnan|-1.#qnan")
      .split("|")
      .concat([""])
  );
  const TRUE = ["true", "t", "yes", "y", "1"];
  const FALSE = ["false", "f", "no", "n", "0"];

  /** Return a value as it is, text without outer blanks; null for every way to say "missing". */
  function present(value) {
    if (value === undefined || value === null || Number.isNaN(value)) return null;
    if (typeof value !== "string") return value;
    const text = value.trim();
    return MISSING.has(text.toLowerCase()) ? null : text;
  }

  const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&");

  /** Return a number as text has it, written as the column says; NaN where there is none. */
  function numberOf(text, { decimal, thousands, unit }) {
    let plain = text;
    if (decimal !== "." || thousands || unit) {
      plain = plain.replace(/[\u00a0\u202f]/g, " ").replace("\u2212", "-");
      if (unit) plain = plain.replace(unit, "").trim().replace(/^([+-])\s+/, "$1");
      plain = plain.replace(/^\((.*)\)$/, "-$1");
      const point = escaped(decimal);
      const shapes = [`\\d*(?:${point}\\d*)?(?:[eE][+-]?\\d+)?`];
      if (thousands)
        for (const mark of [decimal === "." ? "," : "\\.", " ", "'"])
          shapes.push(`\\d{1,3}(?:${mark}\\d{2,3})*${mark}\\d{3}(?:${point}\\d*)?`);
      if (!new RegExp(`^[+-]?(?:${shapes.join("|")})$`).test(plain)) return NaN;
      if (thousands) plain = plain.replace(decimal === "," ? /[ ']/g : /[ ',]/g, "");
      if (decimal === ",") plain = plain.replaceAll(".", "").replace(",", ".");
    }
    return /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(plain) ? Number(plain) : NaN;
  }

  const MONTHS =
    "january february march april may june july august september october november december".split(" ");
  const ISO = [
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.fZ",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M%#z",
  ];
  const PARTS = {
    "%Y": "(?<Y>\\d{1,4})",
    "%y": "(?<y>\\d{1,2})",
    "%m": "(?<m>\\d{1,2})",
    "%d": "(?<d>\\d{1,2})",
    "%B": "(?<B>[A-Za-z]{3,9})",
    "%H": "(?<H>\\d{1,2})",
    "%I": "(?<I>\\d{1,2})",
    "%M": "(?<M>\\d{1,2})",
    "%S": "(?<S>\\d{1,2})",
    "%.f": "(?<f>\\.\\d+)?",
    "%p": "(?<p>[AaPp][Mm])",
    "%#z": "(?: *(?:(?<z>[+-])(?<zh>\\d{2}):?(?<zm>\\d{2})?)|[Zz])",
  };

  /** Return the days since 1970 that a text says in a format, or null. */
  function daysOf(text, format) {
    // In a date of digits alone each part has its width.
    const compact = format === "%Y%m%d";
    const pattern = compact
      ? "(?<Y>\\d{4})(?<m>\\d{2})(?<d>\\d{2})"
      : format.replace(/%[.#]?[A-Za-z]|[^%]/g, (part) => PARTS[part] ?? escaped(part));
    const found = new RegExp(`^${pattern}$`).exec(text);
    if (!found) return null;
    const part = found.groups;
    const at = (name) => (part[name] === undefined ? 0 : Number(part[name]));
    const year = part.y === undefined ? at("Y") : at("y") + (at("y") < 70 ? 2000 : 1900);
    let month = at("m");
    if (part.B !== undefined) {
      const name = part.B.toLowerCase();
      month = 1 + MONTHS.findIndex((each) => each === name || each.slice(0, 3) === name);
    }
    const day = at("d");
    const last = new Date(0);
    last.setUTCFullYear(year, month, 0);
    if (month < 1 || month > 12 || day < 1 || day > last.getUTCDate()) return null;
    let hour = at("H");
    if (part.I !== undefined) {
      if (at("I") < 1 || at("I") > 12) return null;
      hour = (at("I") % 12) + (part.p.toLowerCase() === "pm" ? 12 : 0);
    }
    if (hour > 23 || at("M") > 59 || at("S") > 60 || at("zh") > 23 || at("zm") > 59) return null;
    const offset = (part.z === "-" ? -1 : 1) * (at("zh") * 60 + at("zm"));
    const fraction = part.f === undefined ? 0 : Math.trunc(1e6 * Number("0" + part.f) + 1e-6) / 1e6;
    const midnight = new Date(0);
    midnight.setUTCFullYear(year, month - 1, day);
    const seconds = hour * 3600 + (at("M") - offset) * 60 + at("S") + fraction;
    return midnight.getTime() / 86400000 + seconds / 86400;
  }

  const remainder = (a, b) => a - b * Math.floor(a / b);

  /** Return sine and cosine of month, weekday and, where there are times, hour. */
  function cycles(days, time) {
    const month = new Date(Math.round(days * 86400000)).getUTCMonth();
    const turns = [month / 12, remainder(Math.floor(days), 7) / 7];
    if (time) turns.push(remainder(days, 1));
    return turns.flatMap((turn) => [Math.sin(2 * Math.PI * turn), Math.cos(2 * Math.PI * turn)]);
  }

  /** Return a number bent by the lines between knots. */
  function bent(x, knots, levels) {
    const last = knots.length - 1;
    if (x <= knots[0]) return levels[0];
    if (x >= knots[last]) return levels[last];
    let i = 0;
    while (x >= knots[i + 1]) i++;
    const slope = (levels[i + 1] - levels[i]) / (knots[i + 1] - knots[i]);
    return levels[i] + (x - knots[i]) * slope;
  }

  const clipped = (x) => Math.max(-FARTHEST, Math.min(FARTHEST, x));

  /** Return what a column that is one number a row becomes: scaled, what follows, the indicator. */
  function numeric(column, number, derive = () => []) {
    const missing = !(Math.abs(number) <= FLOAT32_MAX);
    const x = missing ? column.fill : number;
    const shaped = column.knots?.length ? bent(x, column.knots, column.levels) : x;
    const scaled = clipped((shaped - column.mean) / column.scale);
    return [scaled, ...derive(x), ...(column.indicator ? [Number(missing)] : [])];
  }

  const KINDS = {
    "left out": () => [],

    number(column, value) {
      const number = typeof value === "string" ? numberOf(value, column) : value;
      return numeric(column, number === null ? NaN : Number(number));
    },

    boolean(column, value) {
      const word = value === null ? "" : String(value).toLowerCase();
      return numeric(column, TRUE.includes(word) ? 1 : FALSE.includes(word) ? 0 : NaN);
    },

    date(column, value) {
      const formats = column.format === null ? ISO : [column.format];
      const days = formats.map((each) => (value === null ? null : daysOf(String(value), each)));
      const read = days.find((each) => each !== null);
      return numeric(column, read ?? NaN, (day) => cycles(day, column.time));
    },

    category(column, value) {
      const out = new Float32Array(column.categories.length + column.other + column.indicator);
      const where = value === null ? -1 : column.categories.indexOf(String(value));
      if (value === null) {
        if (column.indicator) out[out.length - 1] = 1;
      } else if (where >= 0) out[where] = 1;
      else if (column.other) out[column.categories.length] = 1;
      return out;
    },

    text(column, value) {
      const { places, weights } = terms(column.tensors);
      const out = new Float32Array(weights.length + column.indicator);
      if (value === null) {
        if (column.indicator) out[out.length - 1] = 1;
        return out;
      }
      const words = String(value).toLowerCase().match(/[\p{L}\p{N}_]{2,}/gu) ?? [];
      const often = new Map();
      words.forEach((word, i) => {
        for (const term of i ? [word, `${words[i - 1]} ${word}`] : [word]) {
          const place = places.get(term);
          if (place !== undefined) often.set(place, (often.get(place) ?? 0) + 1);
        }
      });
      let total = 0;
      const held = [...often].map(([place, n]) => [place, (1 + Math.log(n)) * weights[place]]);
      for (const [, weight] of held) total += weight * weight;
      for (const [place, weight] of held) out[place] = weight / Math.sqrt(total);
      return out;
    },
  };

  /** Return the place of each term of a vocabulary, and what it weighs; made once. */
  function terms(vocabulary) {
    if (!vocabulary.index) {
      const words = new TextDecoder().decode(vocabulary.words).split("\n");
      const texts = vocabulary.texts[0];
      const places = new Map();
      const weights = new Float64Array(vocabulary.counts.length);
      for (let i = 0; i < weights.length; i++) {
        const [first, second] = [vocabulary.terms[2 * i], vocabulary.terms[2 * i + 1]];
        places.set(second < 0 ? words[first] : `${words[first]} ${words[second]}`, i);
        weights[i] = Math.log((1 + texts) / (1 + vocabulary.counts[i])) + 1;
      }
      vocabulary.index = { places, weights };
    }
    return vocabulary.index;
  }

  /** Return a row as the float32 numbers that the model reads. */
  function encode(schema, row) {
    if (schema.kind === "table") {
      const parts = schema.columns.map((column) =>
        Array.from(KINDS[column.kind](column, present(row[column.name])))
      );
      return Float32Array.from(parts.flat());
    }
    if (schema.kind === "array")
      return Float32Array.from(row, (x, i) => clipped((x - schema.mean[i]) / schema.scale[i]));
    const pixels = schema.height * schema.width;
    return Float32Array.from(row, (x, i) => {
      const channel = Math.floor(i / pixels);
      return clipped((x / 255 - schema.mean[channel]) / schema.scale[channel]);
    });
  }

  // ---- the model's steps ----------------------------------------------------------------------

  function erf(x) {
    // Series and continued fraction, both to the last digits of a float64.
    const a = Math.abs(x);
    if (a > 6) return Math.sign(x);
    if (a < 2.5) {
      let [term, sum] = [a, a];
      for (let n = 1; Math.abs(term) > 1e-17; n++) {
        term *= (-a * a) / n;
        sum += term / (2 * n + 1);
      }
      return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
    }
    let fraction = 0;
    for (let n = 60; n > 0; n--) fraction = n / 2 / (a + fraction);
    return Math.sign(x) * (1 - Math.exp(-a * a) / (Math.sqrt(Math.PI) * (a + fraction)));
  }

  const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
  const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

  const ACTIVATIONS = {
    sigmoid,
    tanh: Math.tanh,
    relu: (x) => Math.max(x, 0),
    relu6: (x) => Math.min(Math.max(x, 0), 6),
    leaky_relu: (x) => (x >= 0 ? x : 0.01 * x),
    elu: (x) => (x > 0 ? x : Math.expm1(x)),
    silu: (x) => x * sigmoid(x),
    mish: (x) => x * Math.tanh(softplus(x)),
    gelu: (x) => (x * (1 + erf(x / Math.SQRT2))) / 2,
  };

  // What goes from step to step: {data, shape}; the rows of one example, without a batch.
  const made = (shape) => ({ data: new Float64Array(shape.reduce((a, b) => a * b, 1)), shape });

  const STEPS = {
    /** (..., inputs) → (..., units): weight · x + bias. Inputs that are 0 cost nothing. */
    linear({ data, shape }, { weight, bias }) {
      const [units, inputs] = weight.shape;
      const rows = data.length / inputs;
      const out = made([...shape.slice(0, -1), units]);
      for (let r = 0; r < rows; r++) {
        const held = [];
        for (let i = 0; i < inputs; i++) if (data[r * inputs + i] !== 0) held.push(i);
        for (let u = 0; u < units; u++) {
          let sum = bias[u];
          for (const i of held) sum += weight[u * inputs + i] * data[r * inputs + i];
          out.data[r * units + u] = sum;
        }
      }
      return out;
    },

    activation({ data, shape }, { name }) {
      return { data: data.map(ACTIVATIONS[name]), shape };
    },

    flatten({ data }) {
      return { data, shape: [data.length] };
    },

    /** Piecewise-linear numbers, the same scaled and clipped smoothly, and the other columns. */
    encoding({ data }, { numbers, centre, spread, others, binned, low, width }) {
      const out = made([binned.length + numbers.length + others.length]);
      let at = 0;
      for (let i = 0; i < binned.length; i++)
        out.data[at++] = Math.min(Math.max((data[binned[i]] - low[i]) / width[i], 0), 1);
      for (let i = 0; i < numbers.length; i++) {
        const x = Math.min(Math.max((data[numbers[i]] - centre[i]) / spread[i], -1e6), 1e6);
        out.data[at++] = x / Math.sqrt(1 + (x / 3) ** 2);
      }
      for (let i = 0; i < others.length; i++) out.data[at++] = data[others[i]];
      return out;
    },

    /** A sum of embeddings of some columns, and the encoding of others beside. */
    embedding({ data }, { columns, weight, beside, encoding }) {
      const size = columns.length ? weight.shape[1] : 0;
      const rest = beside.length
        ? STEPS.encoding({ data: Float64Array.from(beside, (i) => data[i]) }, encoding).data
        : [];
      const out = made([size + rest.length]);
      for (let i = 0; i < columns.length; i++) {
        const x = data[columns[i]];
        if (x !== 0) for (let j = 0; j < size; j++) out.data[j] += x * weight[i * size + j];
      }
      out.data.set(rest, size);
      return out;
    },

    /** (width) → (members, width), each with signs of its own. */
    views({ data }, { signs }) {
      const [members, width] = signs.shape;
      const out = made([members, width]);
      for (let i = 0; i < out.data.length; i++) out.data[i] = signs[i] * data[i % width];
      return out;
    },

    /** (members, inputs) → (members, units), a layer for each. */
    members({ data }, { weight, bias }) {
      const [members, inputs, units] = weight.shape;
      const out = made([members, units]);
      for (let m = 0; m < members; m++)
        for (let u = 0; u < units; u++) {
          let sum = bias[m * units + u];
          for (let i = 0; i < inputs; i++)
            sum += data[m * inputs + i] * weight[(m * inputs + i) * units + u];
          out.data[m * units + u] = sum;
        }
      return out;
    },

    /** (members, classes) → logits of the mean of the members' probabilities. */
    mean({ data, shape: [members, classes] }) {
      const rows = Array.from({ length: members }, (_, m) =>
        softmax(data.subarray(m * classes, (m + 1) * classes), 1)
      );
      return averaged(rows, Array(members).fill(1 / members));
    },

    /** (members, labels) → logits of the mean of the members' sigmoids. */
    "mean of labels"({ data, shape: [members, labels] }) {
      const out = made([labels]);
      for (let k = 0; k < labels; k++) {
        const own = Array.from({ length: members }, (_, m) => data[m * labels + k]);
        const [on, off] = [1, -1].map((side) => {
          const logs = own.map((z) => -softplus(-side * z)), most = Math.max(...logs);
          return most + Math.log(logs.reduce((sum, each) => sum + Math.exp(each - most), 0));
        });
        out.data[k] = on - off;
      }
      return out;
    },

    /** Logits of the weighted mean of several models' probabilities. */
    mixture(input, { branches }) {
      const rows = branches.map(({ steps, temperature }) => softmax(run(steps, input).data, temperature));
      return averaged(rows, branches.map(({ weight }) => weight));
    },

    /** One sigmoid for each class against the rest, made to sum to 1. */
    sigmoids({ data, shape }) {
      return { data: data.map((x) => -softplus(-x)), shape };
    },

    /** The likelihoods of the rows of a code, in which some columns have no part. */
    code({ data }, { halves, none }) {
      const [classes, columns] = halves.shape, out = made([classes]);
      for (let k = 0; k < classes; k++) {
        let sum = -none[k];
        for (let b = 0; b < columns; b++) {
          const half = halves[k * columns + b];
          if (half) sum += half * data[b] - Math.abs(half) * (softplus(data[b]) + softplus(-data[b]));
        }
        out.data[k] = sum;
      }
      return out;
    },

    /** Log-odds of all pairs → log p that fit them best (Wu, Lin and Weng 2004, their second way).
     *
     * One class after the other is eliminated from the sum of squares; nothing small is lost. */
    pairs({ data }, { places, farthest }) {
      const K = places.shape[0], at = (k, j) => k * K + j;
      const U = new Float64Array(K * K), alone = new Float64Array(K), side = new Float64Array(K).fill(1);
      for (let k = 1; k < K; k++)
        for (let j = 0; j < k; j++) {
          const z = Math.min(Math.max(data[places[at(k, j)]], -farthest), farthest);
          [U[at(j, k)], U[at(k, j)]] = [sigmoid(z), sigmoid(-z)];
        }
      for (let t = K - 1; t > 0; t--) {
        let s = alone[t];
        for (let j = 0; j < t; j++) s += U[at(t, j)] ** 2;
        const w = Float64Array.from({ length: t }, (_, j) => U[at(t, j)] / Math.sqrt(s));
        alone[t] /= s;
        side[t] /= s;
        for (let j = 0; j < t; j++) {
          side[j] += U[at(t, j)] * U[at(j, t)] * side[t];
          alone[j] += U[at(j, t)] ** 2 * alone[t];
        }
        for (let k = 1; k < t; k++)
          for (let j = 0; j < k; j++) {
            const one = U[at(j, k)], other = U[at(k, j)];
            const more = w[k] * U[at(j, t)], less = w[j] * U[at(k, t)];
            const both = one ** 2 + more ** 2, root = Math.sqrt(both);
            alone[k] += (one * less - other * more) ** 2 / both;
            U[at(j, k)] = root;
            U[at(k, j)] = (one * other + more * less) / root;
          }
        for (let j = 0; j < t; j++) U[at(t, j)] = (w[j] ** 2 * U[at(j, t)]) / U[at(t, j)];
      }
      const x = new Float64Array(K).fill(1), c = alone[0] / side[0];
      for (let t = 1; t < K; t++) {
        x[t] = c * side[t];
        for (let j = 0; j < t; j++) x[t] += U[at(t, j)] * x[j];
      }
      const total = Math.log(x.reduce((a, b) => a + b, 0));
      return { data: x.map((each) => Math.log(each) - total), shape: [K] };
    },

    conv({ data, shape: [channels, height, width] }, { weight, stride, padding }) {
      const [maps, , rows, columns] = weight.shape;
      const [high, wide] = [height, width].map(
        (size, i) => Math.floor((size + 2 * padding - (i ? columns : rows)) / stride) + 1
      );
      const out = made([maps, high, wide]);
      for (let k = 0; k < maps; k++)
        for (let c = 0; c < channels; c++)
          for (let i = 0; i < rows; i++)
            for (let j = 0; j < columns; j++) {
              const w = weight[((k * channels + c) * rows + i) * columns + j];
              for (let y = 0; y < high; y++) {
                const from = y * stride + i - padding;
                if (from < 0 || from >= height) continue;
                for (let x = 0; x < wide; x++) {
                  const at = x * stride + j - padding;
                  if (at >= 0 && at < width)
                    out.data[(k * high + y) * wide + x] += w * data[(c * height + from) * width + at];
                }
              }
            }
      return out;
    },

    /** A factor and a summand for each channel: batch normalisation, once it is trained. */
    norm({ data, shape }, { factor, summand }) {
      const pixels = shape[1] * shape[2];
      const out = made(shape);
      for (let i = 0; i < data.length; i++) {
        const channel = Math.floor(i / pixels);
        out.data[i] = data[i] * factor[channel] + summand[channel];
      }
      return out;
    },

    /** The largest of each 2 × 2 pixels. */
    pool({ data, shape: [channels, height, width] }) {
      const [high, wide] = [height >> 1, width >> 1];
      const out = made([channels, high, wide]);
      for (let c = 0; c < channels; c++)
        for (let y = 0; y < high; y++)
          for (let x = 0; x < wide; x++) {
            const at = (c * height + 2 * y) * width + 2 * x;
            out.data[(c * high + y) * wide + x] = Math.max(
              data[at], data[at + 1], data[at + width], data[at + width + 1]
            );
          }
      return out;
    },

    /** Means of the pixels: down · image · acrossᵀ for each channel. */
    average({ data, shape: [channels, height, width] }, { down, across }) {
      const [high, wide] = [down.shape[0], across.shape[0]];
      const out = made([channels, high, wide]);
      for (let c = 0; c < channels; c++)
        for (let y = 0; y < high; y++)
          for (let i = 0; i < height; i++) {
            if (!down[y * height + i]) continue;
            for (let x = 0; x < wide; x++)
              for (let j = 0; j < width; j++)
                out.data[(c * high + y) * wide + x] +=
                  down[y * height + i] * across[x * width + j] * data[(c * height + i) * width + j];
          }
      return out;
    },
  };

  /** Return the logarithms of a weighted mean of probabilities. */
  function averaged(rows, weights) {
    const data = Float64Array.from(rows[0], (_, k) =>
      Math.log(rows.reduce((sum, row, i) => sum + weights[i] * row[k], 0))
    );
    return { data, shape: [data.length] };
  }

  function run(steps, input) {
    return steps.reduce((value, step) => STEPS[step.kind](value, step), input);
  }

  /** Return the logits of an encoded row, before the temperature. */
  function logits(model, encoded) {
    return run(model.steps, { data: Float64Array.from(encoded), shape: model.shape }).data;
  }

  /** Return probabilities, exp(z / T) over the sum of all of these; nothing overflows. */
  function softmax(scores, temperature = 1) {
    const z = Float64Array.from(scores, (score) => score / temperature);
    const most = z.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = z.map((each) => Math.exp(each - most));
    const total = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / total);
  }

  const sigmoids = (logits, temperature = 1) => logits.map((z) => sigmoid(z / temperature));

  /** Return the probabilities of an encoded row: of classes, or of several labels at once. */
  function probabilities(model, encoded, temperature = model.temperature) {
    return (model.thresholds ? sigmoids : softmax)(logits(model, encoded), temperature);
  }

  // ---- what probabilities are made of -----------------------------------------------------------

  /** Return [{name, adds: Float64Array over the classes}] of a model of one linear step, or null.
   *
   * What is added is against the mean over the classes: softmax sees differences alone. Labels
   * that do not exclude each other have a sigmoid each, and what is added is added. */
  function contributions(model, encoded) {
    const steps = model.steps.filter((step) => step.kind !== "flatten");
    if (steps.length !== 1 || steps[0].kind !== "linear") return null;
    const { weight } = steps[0];
    const [classes, inputs] = weight.shape;
    return model.parts.map(({ name, start, stop }) => {
      const adds = new Float64Array(classes);
      for (let i = start; i < stop; i++)
        for (let k = 0; k < classes; k++) adds[k] += weight[k * inputs + i] * encoded[i];
      const mean = model.thresholds ? 0 : adds.reduce((a, b) => a + b, 0) / classes;
      return { name, adds: adds.map((each) => each - mean) };
    });
  }

  /** Return which classes are in the set that holds the true one with this chance.
   *
   * `scores` are of rows that were not trained on, sorted: 1 - probability of the true class. */
  function conformal(probabilities, scores, coverage) {
    const rank = Math.ceil(Math.round((scores.length + 1) * coverage * 1e9) / 1e9);
    const limit = rank > scores.length ? Infinity : scores[rank - 1];
    return Array.from(probabilities, (p) => 1 - p <= limit);
  }

  /** Return which labels are in the set that holds this share of a row's labels, on average.
   *
   * `scores` are the probabilities of labels that were on, of rows that were not trained on, sorted;
   * `misses` what missing each adds to its row's false-negative rate; `scored` how many rows. */
  function holding(probabilities, { scores, misses, scored }, coverage) {
    let allowed = (scored + 1) * (1 - coverage) - 1;
    allowed += 1e-9 * Math.max(1, Math.abs(allowed));
    let limit = allowed < 0 ? 0 : Infinity;
    for (let i = 0, missed = 0; allowed >= 0 && i < scores.length; i++) {
      if (missed <= allowed && (i === 0 || scores[i] !== scores[i - 1])) limit = scores[i];
      missed += misses[i];
      if (i === scores.length - 1 && missed <= allowed) limit = Infinity;
    }
    return Array.from(probabilities, (p) => p >= limit);
  }

  return {
    read, encode, logits, softmax, sigmoids, probabilities, contributions, conformal, holding,
  };
})();

if (typeof module !== "undefined") module.exports = Luce;
