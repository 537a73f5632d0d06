// Values as people read them.

const LARGE = 1e15;
const SMALL = 1e-6;
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const fourDigits = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4 });
const oneDecimal = new Intl.NumberFormat("en-US", { style: "percent", maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** Four significant digits; whole and grouped from a thousand up; `undefined` without a number. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "undefined";
  const size = Math.abs(value);
  if (size >= LARGE || (size > 0 && size < SMALL)) return minus(value.toExponential(3));
  return minus((size >= 1000 ? whole : fourDigits).format(value === 0 ? 0 : value));
}

/** A difference with its sign, digits as in `number`. */
export function signed(value: number): string {
  return value > 0 ? `+${number(value)}` : number(value);
}

/** A probability in percent; one that is nearly nothing or nearly sure is not rounded to 0% or 100%. */
export function percent(share: number): string {
  if (share > 0 && share < 0.001) return "<0.1%";
  if (share < 1 && share > 0.999) return ">99.9%";
  return oneDecimal.format(share);
}

/** A count with its noun: `1 row`, `1,200 rows`. */
export function count(many: number, noun: string): string {
  return `${whole.format(many)} ${noun}${many === 1 ? "" : "s"}`;
}

/** A time of ISO 8601 in the reader's zone; one that cannot be read as it was. */
export function time(iso: string): string {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? iso : moment.format(at);
}

/** Bytes in the largest unit that leaves a number of 1 or more. */
export function bytes(many: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0;
  for (; many >= 1024 && unit < units.length - 1; unit++) many /= 1024;
  return `${number(many)} ${units[unit]}`;
}

function minus(text: string): string {
  return text.replace(/^-/, "\u2212");
}
