import { expect, test } from "vitest";
import { rowsOf, template } from "./csv";
import { curl } from "./curl";
import { entriesOf, entryOf, pickable, rowOf, unsendable } from "./fields";
import type { Card, Feature } from "./model";
import { problemOf, sorted } from "./problems";
import { bytes, count, number, percent, signed } from "./words";

test.each([
  [181234.4, "181,234"],
  [-1234.6, "\u22121,235"],
  [999.96, "1,000"],
  [12.3456, "12.35"],
  [0.000123456, "0.0001235"],
  [1.5e-9, "1.500e-9"],
  [2e15, "2.000e+15"],
  [-0, "0"],
  [null, "undefined"],
  [NaN, "undefined"],
])("%s reads %s", (value, text) => expect(number(value)).toBe(text));

test.each([
  [0, "0%"],
  [0.0004, "<0.1%"],
  [0.1234, "12.3%"],
  [0.9996, ">99.9%"],
  [1, "100%"],
])("a probability of %s reads %s", (share, text) => expect(percent(share)).toBe(text));

test("differences bear their sign, counts their noun, bytes their unit", () => {
  expect([signed(2), signed(-2), signed(0)]).toEqual(["+2", "\u22122", "0"]);
  expect([count(1, "row"), count(1200, "row")]).toEqual(["1 row", "1,200 rows"]);
  expect([bytes(500), bytes(16 * 2 ** 20)]).toEqual(["500 bytes", "16 MiB"]);
});

test.each([
  ["2024-05-31T12:00:00", "2024-05-31T12:00"],
  ["2024-05-31T12:00:07Z", "2024-05-31T12:00:07"],
  ["2024-05-31 12:00:00.500000", "2024-05-31T12:00:00.500"],
  ["2024-05-31", "2024-05-31T00:00"],
  ["2024-05-31T12:00:00.000001", null],
  ["2024-05-31T12:00:00+02:00", null],
])("the time %s is picked as %s", (text, picked) => expect(pickable(text)).toBe(picked));

const AREA: Feature = { name: "area", type: "number", required: true };
const TOWN: Feature = { name: "town", type: "text", required: false, categories: ["Ames", ""] };
const NOTE: Feature = { name: "note", type: "text", required: false };
const NEW: Feature = { name: "new", type: "boolean", required: true };

test("entries become the values that the service takes, and nothing typed is a missing value", () => {
  const features = [AREA, TOWN, NOTE, NEW];
  expect(rowOf(features, { area: "6e1", town: "", note: "", new: "false" })).toEqual({
    area: 60,
    town: "",
    note: null,
    new: false,
  });
  expect(rowOf(features, {})).toEqual({ area: null, town: null, note: null, new: null });
  expect(entryOf(AREA, 0.1)).toBe("0.1");
  expect(entryOf(NEW, false)).toBe("false");
  expect(entryOf(NOTE, null)).toBe(null);
});

test("a feature may be called as what every object has", () => {
  const card = { features: [{ ...NOTE, name: "constructor" }], example: { area: 60 } } as unknown as Card;
  expect(entriesOf(card)).toEqual({ constructor: null });
  expect(sorted({ status: 400, detail: "Bad.", errors: [] }, ["constructor"]).fields.has("constructor")).toBe(false);
});

test("what is needed and lacking, or cannot be read, is not sent", () => {
  expect(unsendable(AREA, "", false)).toMatch("a number");
  expect(unsendable(NOTE, "", false)).toBe(null);
  expect(unsendable(AREA, "", true)).toMatch("not a number");
});

test("a refusal is parted into what fields of the form name and everything else", () => {
  const errors = [
    { row: 0, field: "area", problem: "is no number" },
    { row: 0, field: "area", problem: "again" },
    { row: 0, field: "other", problem: "is no column" },
    { row: 0, field: null, problem: "the model has no answer for this row" },
  ];
  expect(sorted(problemOf(400, JSON.stringify({ detail: "Bad.", errors })), ["area"])).toEqual({
    fields: new Map([["area", "is no number"]]),
    others: ["other: is no column", "The model has no answer for this row."],
  });
});

test("a refusal without errors, or by somebody in between, is a message", () => {
  expect(sorted(problemOf(413, '{"detail": "Too long."}'), [])).toEqual({ fields: new Map(), others: ["Too long."] });
  expect(problemOf(502, "<html>Bad gateway</html>").detail).toContain("502");
});

test("a CSV is read with its quotes, commas and lines", () => {
  expect(rowsOf('id,prediction\r\n"1,5",2\r\n"a ""b""\r\nc",3\r\n')).toEqual([
    ["id", "prediction"],
    ["1,5", "2"],
    ['a "b"\r\nc', "3"],
  ]);
});

test("the template is the example; a text that is missing is left out, since an empty one is none", () => {
  const card = { features: [AREA, TOWN, NOTE], key: ["id"], example: { area: 60, town: 'a "b"', note: null } } as unknown;
  expect(template(card as Card)).toBe('id,area,town\r\n1,60,"a ""b"""\r\n');
});

test("the command quotes what a shell would read, and takes the token from the environment", () => {
  expect(curl("http://x/predict", { town: "St John's" }, true)).toBe(
    `curl 'http://x/predict' -H 'Content-Type: application/json' -H "Authorization: Bearer $EVERGREEN_TOKEN"` +
      ` -d '{"records":[{"town":"St John'\\''s"}]}'`,
  );
});
