// CSV as the service writes it (RFC 4180): read to be shown, written as a template to fill in.

import { exampleOf } from "./fields";
import type { Card } from "./model";

/** The rows of a CSV, its header first, as text. */
export function rowsOf(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let word = "";
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const one = text[at];
    if (quoted) {
      if (one !== '"') word += one;
      else if (text[at + 1] === '"') word += text[++at];
      else quoted = false;
    } else if (one === '"') quoted = true;
    else if (one === ",") {
      row.push(word);
      word = "";
    } else if (one === "\n") {
      rows.push([...row, word]);
      row = [];
      word = "";
    } else if (one !== "\r") word += one;
  }
  if (word !== "" || row.length > 0) rows.push([...row, word]);
  return rows;
}

/** A header and the example row. A text that is missing there is left out: an empty field would be the empty text. */
export function template(card: Card): string {
  const shown = card.features.filter(({ name, type }) => type !== "text" || exampleOf(card, name) !== null);
  const names = [...(card.key ?? []), ...shown.map((feature) => feature.name)];
  const values = [...(card.key ?? []).map(() => "1"), ...shown.map(({ name }) => String(exampleOf(card, name) ?? ""))];
  return `${names.map(field).join(",")}\r\n${values.map(field).join(",")}\r\n`;
}

function field(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
