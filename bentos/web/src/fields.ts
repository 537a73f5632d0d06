// Between what a form field holds, as text, and the JSON value that the service takes.

import type { Card, Feature, Row, Value } from "./model";

/** What a field holds; null where the value is missing. */
export type Entry = string | null;
export type Entries = Record<string, Entry>;

const TIME = /^(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?(?:[Zz]|\+00:00)?$/;

/** The example row as entries; a feature without one is missing. */
export function entriesOf(card: Card): Entries {
  return Object.fromEntries(card.features.map((feature) => [feature.name, entryOf(feature, exampleOf(card, feature.name))]));
}

/** The example's value of a feature. Any name may be a column's, also one that every object has, such as constructor. */
export function exampleOf(card: Card, name: string): Value {
  return card.example && Object.hasOwn(card.example, name) ? card.example[name]! : null;
}

export function entryOf(feature: Feature, value: Value): Entry {
  if (value === null) return null;
  return feature.type === "timestamp" ? pickable(String(value)) ?? String(value) : String(value);
}

/** A time as a date and time input spells it: shortest, without a zone; null where the input could not hold it. */
export function pickable(text: string): string | null {
  const found = TIME.exec(text);
  if (!found) return null;
  const [, date, minutes = "00:00", seconds = "00", digits = ""] = found;
  const fraction = digits.replace(/0+$/, "");
  if (fraction.length > 3) return null;
  if (fraction) return `${date}T${minutes}:${seconds}.${fraction.padEnd(3, "0")}`;
  return `${date}T${minutes}${seconds === "00" ? "" : `:${seconds}`}`;
}

/** The row to send; every feature is in it, so that the service itself says what it lacks. */
export function rowOf(features: Feature[], entries: Entries): Row {
  return Object.fromEntries(features.map((feature) => [feature.name, valueOf(feature, entries[feature.name] ?? null)]));
}

const WANTED = { number: "a number", text: "a value", boolean: "true or false", timestamp: "a date and a time" };

/** Why there is no use in sending a field as it is; null where the service is to judge. */
export function unsendable(feature: Feature, entry: Entry, unreadable: boolean): string | null {
  if (unreadable) return `This is not ${WANTED[feature.type]}.`;
  if (feature.required && valueOf(feature, entry) === null) return `The model needs this: give ${WANTED[feature.type]}.`;
  return null;
}

function valueOf(feature: Feature, entry: Entry): Value {
  // An empty field is a missing value, unless the empty text is one of the categories.
  if (entry === null || (entry === "" && !feature.categories?.includes(""))) return null;
  if (feature.type === "number") return Number(entry);
  if (feature.type === "boolean") return entry === "true";
  return entry;
}
