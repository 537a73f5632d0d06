import { memo, useState } from "react";
import { type Entry, pickable } from "./fields";
import type { Feature } from "./model";
import { sentence } from "./problems";

const MISSING = "missing";
const OTHER = "other";
const IS = "is ";

export function idOf(index: number): string {
  return `feature-${index}`;
}

type Props = {
  index: number;
  feature: Feature;
  entry: Entry;
  problem: string | undefined;
  hidden: boolean;
  onChange: (name: string, entry: Entry) => void;
};

/** One feature of the form: its label, its input, and what is wrong with it. */
export const Field = memo(function Field({ index, feature, entry, problem, hidden, onChange }: Props) {
  const id = idOf(index);
  const common = {
    id,
    required: feature.required,
    "aria-invalid": problem !== undefined,
    "aria-describedby": problem === undefined ? undefined : `${id}-problem`,
  };
  const change = (entry: Entry) => onChange(feature.name, entry);
  const choices = feature.type === "boolean" ? ["true", "false"] : feature.categories;
  return (
    <div className="field" hidden={hidden}>
      <label htmlFor={id}>
        {feature.name}
        {feature.required && (
          <span className="star" aria-hidden="true">
            {" "}
            *
          </span>
        )}
      </label>
      {choices ? (
        <Choice {...{ common, feature, choices, entry, change }} />
      ) : feature.type === "timestamp" ? (
        <Time {...{ common, entry, change }} />
      ) : (
        <input
          {...common}
          type={feature.type === "number" ? "number" : "text"}
          step="any"
          placeholder={feature.required ? undefined : MISSING}
          autoComplete="off"
          value={entry ?? ""}
          onChange={(event) => change(event.target.value)}
        />
      )}
      {problem !== undefined && (
        <p className="problem" id={`${id}-problem`}>
          {sentence(problem)}
        </p>
      )}
    </div>
  );
});

type Part = { common: object; entry: Entry; change: (entry: Entry) => void };

function Choice({ common, feature, choices, entry, change }: Part & { feature: Feature; choices: string[] }) {
  const [other, setOther] = useState(entry !== null && !choices.includes(entry));
  const chosen = other ? OTHER : entry === null ? MISSING : IS + entry;
  return (
    <>
      <select
        {...common}
        value={chosen}
        onChange={(event) => {
          const value = event.target.value;
          setOther(value === OTHER);
          change(value.startsWith(IS) ? value.slice(IS.length) : value === OTHER ? "" : null);
        }}
      >
        {(!feature.required || entry === null) && <option value={MISSING}>{feature.required ? "choose…" : "missing"}</option>}
        {choices.map((choice) => (
          <option key={choice} value={IS + choice}>
            {choice === "" ? "(empty text)" : choice}
          </option>
        ))}
        {feature.type === "text" && <option value={OTHER}>another value…</option>}
      </select>
      {other && (
        <input
          type="text"
          aria-label={`Another value of ${feature.name}`}
          autoComplete="off"
          value={entry ?? ""}
          onChange={(event) => change(event.target.value)}
        />
      )}
    </>
  );
}

function Time({ common, entry, change }: Part) {
  // A time finer than the input can hold, such as microseconds, is left as text, or it would be changed unseen.
  const [picked] = useState(entry === null || pickable(entry) === entry);
  return (
    <input
      {...common}
      type={picked ? "datetime-local" : "text"}
      step={picked ? "any" : undefined}
      value={entry ?? ""}
      onChange={(event) => change(event.target.value)}
    />
  );
}
