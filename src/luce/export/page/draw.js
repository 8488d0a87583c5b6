/* A canvas to draw on, and a drawing or a picture as the bytes that a model of images reads.
 *
 *   const pad = LuceDraw.pad(canvas, { paper: 0, change })   mouse, touch, pen and keyboard
 *   pad.clear(); pad.show(image); pad.empty
 *   LuceDraw.pixels(canvas, { channels, height, width }, { paper, centred })   → Uint8Array
 *
 * `paper` is the grey of what is not drawn on, 0 or 255. By keyboard, arrows move the pen, the space
 * bar puts it down and lifts it. This file is whole, and defines one name, `LuceDraw`.
 */
"use strict";

const LuceDraw = (() => {
  const grey = (value) => `rgb(${value},${value},${value})`;

  function pad(canvas, { paper = 0, change = () => {} } = {}) {
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const width = Math.min(canvas.width, canvas.height) / 12;
    let last = null;
    let key = { x: canvas.width / 2, y: canvas.height / 2, down: false };
    const self = { empty: true, clear, show };

    function clear() {
      pen.fillStyle = grey(paper);
      pen.fillRect(0, 0, canvas.width, canvas.height);
      self.empty = true;
      change();
    }

    function show(image) {
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      self.empty = false;
      change();
    }

    function stroke(to) {
      const from = last ?? to;
      pen.strokeStyle = pen.fillStyle = grey(255 - paper);
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(from.x, from.y);
      pen.lineTo(to.x, to.y);
      pen.stroke();
      // Round ends; a line from a point to itself draws nothing.
      pen.beginPath();
      pen.arc(to.x, to.y, width / 2, 0, 2 * Math.PI);
      pen.fill();
      last = to;
      self.empty = false;
      change();
    }

    function place(event) {
      const box = canvas.getBoundingClientRect();
      return {
        x: ((event.clientX - box.left) / box.width) * canvas.width,
        y: ((event.clientY - box.top) / box.height) * canvas.height,
      };
    }

    canvas.style.touchAction = "none";
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      last = null;
      stroke(place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) stroke(place(event));
    });
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    canvas.addEventListener("keydown", (event) => {
      if (event.key === " ") {
        key.down = !key.down;
        last = null;
        if (key.down) stroke({ x: key.x, y: key.y });
      } else if (event.key in moves) {
        const [x, y] = moves[event.key];
        const inside = (value, size) => Math.max(0, Math.min(size, value));
        key.x = inside(key.x + (x * width) / 2, canvas.width);
        key.y = inside(key.y + (y * width) / 2, canvas.height);
        if (key.down) stroke({ x: key.x, y: key.y });
      } else return;
      event.preventDefault();
    });
    clear();
    return self;
  }

  /** Return the part of a channel that has anything on it, and its centre of mass. */
  function inked(values, width, height, paper) {
    let [left, right, top, bottom] = [width, -1, height, -1];
    let [mass, x, y] = [0, 0, 0];
    for (let i = 0; i < values.length; i++) {
      const ink = Math.abs(values[i] - paper);
      if (ink < 16) continue;
      const [column, row] = [i % width, Math.floor(i / width)];
      [left, right] = [Math.min(left, column), Math.max(right, column)];
      [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
      [mass, x, y] = [mass + ink, x + ink * (column + 0.5), y + ink * (row + 0.5)];
    }
    return mass ? { left, right: right + 1, top, bottom: bottom + 1, x: x / mass, y: y / mass } : null;
  }

  /** Return the means of a channel over the squares that each pixel of a smaller image covers. */
  function reduced(values, width, height, { left, top, step }, to, paper) {
    const out = new Float64Array(to.width * to.height);
    for (let row = 0; row < to.height; row++)
      for (let column = 0; column < to.width; column++) {
        let [sum, area] = [0, 0];
        const [y0, y1] = [top + row * step.y, top + (row + 1) * step.y];
        const [x0, x1] = [left + column * step.x, left + (column + 1) * step.x];
        for (let y = Math.floor(y0); y < y1; y++)
          for (let x = Math.floor(x0); x < x1; x++) {
            const share =
              (Math.min(y + 1, y1) - Math.max(y, y0)) * (Math.min(x + 1, x1) - Math.max(x, x0));
            const inside = x >= 0 && y >= 0 && x < width && y < height;
            sum += share * (inside ? values[y * width + x] : paper);
            area += share;
          }
        out[row * to.width + column] = sum / area;
      }
    return out;
  }

  /** Return what is drawn as (channels, height, width), as large in the image as MNIST's digits. */
  function pixels(canvas, { channels, height, width }, { paper = 0, centred = false } = {}) {
    const { data } = canvas
      .getContext("2d", { willReadFrequently: true })
      .getImageData(0, 0, canvas.width, canvas.height);
    const planes = [0, 1, 2].map((c) => Float64Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + c]));
    // As Pillow makes grey of colours.
    const luma = planes[0].map((red, i) => 0.299 * red + 0.587 * planes[1][i] + 0.114 * planes[2][i]);
    let part = { left: 0, top: 0, step: { x: canvas.width / width, y: canvas.height / height } };
    const box = centred ? inked(luma, canvas.width, canvas.height, paper) : null;
    if (box) {
      // 20 of 28 pixels are the drawing, its mass in the middle; small images have no margin.
      const margin = Math.min(width, height) >= 16 ? Math.round(Math.min(width, height) / 7) : 0;
      const step = Math.max(
        (box.right - box.left) / (width - 2 * margin),
        (box.bottom - box.top) / (height - 2 * margin)
      );
      const [x, y] = margin ? [box.x, box.y] : [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
      part = { left: x - (width / 2) * step, top: y - (height / 2) * step, step: { x: step, y: step } };
    }
    const used = channels === 1 ? [luma] : planes;
    const out = new Uint8Array(channels * height * width);
    for (let c = 0; c < channels; c++) {
      const plane = reduced(used[c % 3], canvas.width, canvas.height, part, { width, height }, paper);
      plane.forEach((value, i) => (out[c * height * width + i] = Math.round(value)));
    }
    return out;
  }

  return { pad, pixels };
})();

if (typeof module !== "undefined") module.exports = LuceDraw;
