// Numbers as people read them.

/** A number with as many digits as its error makes worth reading, at most four after the point. */
export function number(value: number | null | undefined, digits = 2): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "n/a";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return value.toFixed(digits).replace("-", "−");
}

/** value ± error; an error is never rounded to nothing. */
export function withError(value: number | null | undefined, error: number | null | undefined): string {
  if (error === null || error === undefined || !Number.isFinite(error)) return number(value);
  const digits = Math.min(4, Math.max(0, 1 - Math.floor(Math.log10(Math.max(Math.abs(error), 1e-9)))));
  const least = error > 0 ? 10 ** -digits : 0;
  return `${number(value, digits)} ± ${number(Math.max(error, least), digits)}`;
}

/** Three thousand is 3,000. */
export const whole = (value: number): string => Math.round(value).toLocaleString("en-US");
