// Outlines of densities: closed, of the right share, in one line.
import assert from "node:assert/strict";
import { test } from "node:test";
import { contours } from "../src/studio/contours";

const SIDE = 121;
const FRAME = { x0: -6, y0: -6, x1: 6, y1: 6 };

function grid(log: (x: number, y: number) => number) {
  const data = new Float32Array(SIDE * SIDE);
  for (let row = 0; row < SIDE; row++)
    for (let column = 0; column < SIDE; column++)
      data[row * SIDE + column] = log(-6 + (12 * (column + 0.5)) / SIDE, -6 + (12 * (row + 0.5)) / SIDE);
  return { data, shape: [SIDE, SIDE] };
}

test("the outline of a normal is one closed circle of the radius of its share", () => {
  for (const { lines, share } of contours(grid((x, y) => -(x * x + y * y) / 2), FRAME, [0.5, 0.9])) {
    assert.equal(lines.length, 1);
    const line = lines[0] as Float32Array;
    assert.deepEqual([...line.slice(0, 2)], [...line.slice(-2)]);
    const radius = Math.sqrt(-2 * Math.log(1 - share));
    for (let k = 0; k < line.length; k += 2) assert.ok(Math.abs(Math.hypot(line[k] ?? 0, line[k + 1] ?? 0) - radius) < 0.03);
  }
});

test("two peaks have two outlines, and one that leaves the frame is open", () => {
  const two = contours(grid((x, y) => Math.log(Math.exp(-((x - 3) ** 2 + y * y)) + Math.exp(-((x + 3) ** 2 + y * y)))), FRAME, [0.5]);
  assert.equal(two[0]?.lines.length, 2);
  const open = contours(grid((x, y) => -((x - 6) ** 2 + y * y) / 2), FRAME, [0.5])[0]?.lines ?? [];
  assert.equal(open.length, 1);
  const line = open[0] as Float32Array;
  assert.ok(Math.abs((line[0] ?? 0) - (line.at(-2) ?? 0)) < 1e-6 && Math.abs((line[1] ?? 0) - (line.at(-1) ?? 0)) > 1);
});
