// Words for places in the plane.
import { number } from "../../core/numbers";
import type { Gaussian } from "../desk";

export const NAMES: [string, string] = ["z₁", "z₂"];
export const degrees = (angle: number): number => Math.round((angle * 180) / Math.PI);
export const place = ([x, y]: readonly number[]): string => `(${number(x)}, ${number(y)})`;
export const inWords = (q: Gaussian): string =>
  `mean ${place(q.mean)}, standard deviations ${number(q.sd[0])} and ${number(q.sd[1])}, turned by ${degrees(q.angle)} degrees`;
