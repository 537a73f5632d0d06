import { useEffect, useState } from "react";
import { rowsOf, template } from "./csv";
import type { Card } from "./model";
import { type Problem, sentence } from "./problems";
import { ask } from "./service";
import { bytes, count, number, percent } from "./words";

const SHOWN = 200;

type Scored = { file: string; url: string; header: string[]; rows: string[][] };

/** A whole table at once: a CSV in, its predictions as a table and as a file. */
export function Batch({ card }: { card: Card }) {
  const [over, setOver] = useState(false);
  const [asking, setAsking] = useState<string | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [scored, setScored] = useState<Scored | null>(null);

  useEffect(() => {
    // A file dropped beside the field would replace the page, and what was typed would be lost.
    const dragged = (event: DragEvent) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      setOver(true);
    };
    const left = (event: DragEvent) => event.relatedTarget === null && setOver(false);
    const dropped = (event: DragEvent) => {
      const file = event.dataTransfer?.files[0];
      if (!file) return;
      event.preventDefault();
      setOver(false);
      void score(file);
    };
    window.addEventListener("dragover", dragged);
    window.addEventListener("dragleave", left);
    window.addEventListener("drop", dropped);
    return () => {
      window.removeEventListener("dragover", dragged);
      window.removeEventListener("dragleave", left);
      window.removeEventListener("drop", dropped);
    };
  });

  useEffect(() => () => void (scored && URL.revokeObjectURL(scored.url)), [scored]);

  async function score(file: File) {
    if (asking !== null) return;
    setProblem(null);
    setScored(null);
    const most = card.limits?.max_body_bytes;
    if (most !== undefined && file.size > most) {
      const detail = `${file.name} has ${bytes(file.size)}; the most is ${bytes(most)}. Send it in parts.`;
      return setProblem({ status: 413, detail, errors: [] });
    }
    setAsking(file.name);
    const answer = await ask("predict", { method: "POST", headers: { "Content-Type": "text/csv" }, body: file });
    setAsking(null);
    if (!(answer instanceof Response)) return setProblem(answer);
    const whole = await answer.blob();
    const [header = [], ...rows] = rowsOf(await whole.text());
    setScored({ file: file.name, url: URL.createObjectURL(whole), header, rows });
  }

  return (
    <section className="card" aria-labelledby="batch">
      <h2 id="batch">Predict a whole table</h2>
      <p className="quiet">
        A CSV file in UTF-8 with a header row, its columns in any order
        {card.key?.length ? `; ${card.key.join(", ")} may be among them and come${card.key.length === 1 ? "s" : ""} back` : ""}
        {card.limits ? `. At most ${count(card.limits.max_rows, "row")} and ${bytes(card.limits.max_body_bytes)}` : ""}.
      </p>
      <div className={over ? "drop over" : "drop"}>
        <label className="button">
          Choose a CSV file
          <input
            type="file"
            accept=".csv,text/csv"
            onChange={(event) => {
              const file = event.target.files?.[0];
              event.target.value = "";
              if (file) void score(file);
            }}
          />
        </label>
        <span>or drop it anywhere on this page</span>
        {card.example && (
          <a download={`${card.model}.csv`} href={`data:text/csv;charset=utf-8,${encodeURIComponent(template(card))}`}>
            Download a template
          </a>
        )}
      </div>
      <div role="status">
        {asking && <p>Predicting {asking}…</p>}
        {scored && (
          <p className="done">
            <strong>{count(scored.rows.length, "row")} predicted</strong> of {scored.file}
            {scored.rows.length > SHOWN && `; the first ${SHOWN} are shown`}.
          </p>
        )}
      </div>
      {problem && <Refused problem={problem} />}
      {scored && <Answers card={card} scored={scored} />}
    </section>
  );
}

function Refused({ problem }: { problem: Problem }) {
  const errors = [...problem.errors].sort((one, other) => (one.row ?? -1) - (other.row ?? -1));
  return (
    <>
      <p className="problem" role="alert">
        {errors.length > 0 ? "No row was predicted. Put these right, and send the file again." : problem.detail}
      </p>
      {errors.length > 0 && (
        <div className="scroll" tabIndex={0} role="group" aria-label="Problems of the file">
          <table>
            <thead>
              <tr>
                <th scope="col" className="number">
                  Row
                </th>
                <th scope="col">Field</th>
                <th scope="col">Problem</th>
              </tr>
            </thead>
            <tbody>
              {errors.map(({ row, field, problem: text }, index) => (
                <tr key={index}>
                  <td className="number">{row === null ? "header" : row + 1}</td>
                  <td>{field ?? "\u2014"}</td>
                  <td>{sentence(text)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {errors.length > 0 && <p className="quiet">Row 1 is the first below the header. {more(problem)}</p>}
    </>
  );
}

function more(problem: Problem): string {
  return /\d+ errors were found; the first \d+ are listed\./.exec(problem.detail)?.[0] ?? "";
}

function Answers({ card, scored }: { card: Card; scored: Scored }) {
  const kinds = scored.header.map((name) => {
    if (name.startsWith("probability_")) return percent;
    return name === "prediction" && card.task === "regression" ? number : null;
  });
  // A key may itself be called so; what the service adds comes after the keys.
  const keys = scored.header.lastIndexOf("prediction");
  const read = (word: string, column: number) => (column < keys ? word : (kinds[column]?.(Number(word)) ?? word));
  return (
    <>
      <p>
        <a className="button" download={`${scored.file.replace(/\.csv$/i, "")}-predictions.csv`} href={scored.url}>
          Download all {count(scored.rows.length, "prediction")}
        </a>
      </p>
      <div className="scroll answers" tabIndex={0} role="group" aria-label="Predictions of the file">
        <table>
          <thead>
            <tr>
              {scored.header.map((name, column) => (
                <th key={column} scope="col" className={column >= keys && kinds[column] ? "number" : undefined}>
                  {column === keys && card.unit ? `${name} (${card.unit})` : name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {scored.rows.slice(0, SHOWN).map((row, index) => (
              <tr key={index}>
                {row.map((word, column) => (
                  <td key={column} className={column >= keys && kinds[column] ? "number" : undefined}>
                    {read(word, column)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}
