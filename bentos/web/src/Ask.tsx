import { type FormEvent, Fragment, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { curl } from "./curl";
import { Field, idOf } from "./Field";
import { type Entry, entriesOf, rowOf, unsendable } from "./fields";
import type { Answer, Card } from "./model";
import { Prediction } from "./Prediction";
import { type Problem, sorted } from "./problems";
import { get, hasToken, isProblem } from "./service";

/** With more features than this there is a box to filter them. */
const MANY = 12;

export function Ask({ card }: { card: Card }) {
  const [entries, setEntries] = useState(() => entriesOf(card));
  const [filter, setFilter] = useState("");
  const [filled, setFilled] = useState(0);
  const [asking, setAsking] = useState(false);
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [stale, setStale] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [refused, setRefused] = useState(0);
  const [command, setCommand] = useState<{ text: string; copied: boolean } | null>(null);
  const form = useRef<HTMLFormElement>(null);
  const names = useMemo(() => card.features.map((feature) => feature.name), [card]);
  const bad = useMemo(() => problem && sorted(problem, names), [problem, names]);
  const shown = names.filter((name) => name.toLowerCase().includes(filter.trim().toLowerCase()));

  const change = useCallback((name: string, entry: Entry) => {
    setEntries((before) => ({ ...before, [name]: entry }));
    setProblem((before) => without(before, name));
    setStale(true);
    setCommand(null);
  }, []);

  useEffect(() => {
    // Only a refusal moves the focus; as values are put right one after the other, it stays where the person is.
    if (refused === 0) return;
    form.current?.querySelector<HTMLElement>(".fields [aria-invalid=true]")?.focus();
  }, [refused]);

  function reset() {
    setEntries(entriesOf(card));
    setFilled((before) => before + 1);
    setStale(true);
    setProblem(null);
    setCommand(null);
  }

  async function predict(event: FormEvent) {
    event.preventDefault();
    const errors = card.features.flatMap((feature, index) => {
      const input = form.current!.querySelector<HTMLInputElement>(`#${idOf(index)}`);
      const problem = unsendable(feature, entries[feature.name] ?? null, input?.validity.badInput ?? false);
      return problem === null ? [] : [{ row: 0, field: feature.name, problem }];
    });
    if (errors.length > 0) return refuse({ status: 0, detail: "", errors });
    setAsking(true);
    const body = JSON.stringify({ records: [rowOf(card.features, entries)] });
    const said = await get<Answer>("predict", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    setAsking(false);
    if (isProblem(said)) return refuse(said);
    setProblem(null);
    setAnswer(said);
    setStale(false);
  }

  function refuse(said: Problem) {
    // What is wrong must not be hidden by the filter.
    setFilter("");
    setAnswer(null);
    setProblem(said);
    setRefused((before) => before + 1);
  }

  async function copy() {
    const text = curl(new URL("predict", document.baseURI).href, rowOf(card.features, entries), hasToken());
    // Browsers lend the clipboard to https and localhost only; elsewhere the command is there to be copied by hand.
    const copied = await (navigator.clipboard?.writeText(text) ?? Promise.reject()).then(
      () => true,
      () => false,
    );
    setCommand({ text, copied });
  }

  const wrong = names.filter((name) => bad?.fields.has(name));
  return (
    <form className="ask" ref={form} noValidate onSubmit={(event) => void predict(event)}>
      <section className="card" aria-labelledby="ask">
        <div className="heading">
          <h2 id="ask">Ask for one prediction</h2>
          {card.features.length > MANY && (
            <div className="filter">
              <label htmlFor="filter">Find a feature</label>
              <input
                id="filter"
                type="search"
                value={filter}
                onChange={(event) => setFilter(event.target.value)}
                onKeyDown={(event) => event.key === "Enter" && event.preventDefault()}
              />
              <span role="status" className="quiet">
                {filter.trim() && `${shown.length} of ${names.length} shown`}
              </span>
            </div>
          )}
        </div>
        <p className="quiet">
          {card.example ? "Filled in is an example row; change what you like. " : ""}
          <span className="star">*</span> marks what the model needs; anything else may be left empty.
        </p>
        <div className="fields" key={filled}>
          {card.features.map((feature, index) => (
            <Field
              key={feature.name}
              index={index}
              feature={feature}
              entry={entries[feature.name] ?? null}
              problem={bad?.fields.get(feature.name)}
              hidden={!shown.includes(feature.name)}
              onChange={change}
            />
          ))}
        </div>
        <button type="button" className="link reset" onClick={reset}>
          {card.example ? "Back to the example" : "Empty the form"}
        </button>
      </section>
      <section className="card panel" aria-labelledby="prediction">
        <h2 id="prediction">Prediction</h2>
        <div role="status" aria-busy={asking} className={stale && answer ? "result stale" : "result"}>
          {answer && <Prediction card={card} answer={answer} />}
          {answer && stale && <p className="quiet">Values changed since: predict again.</p>}
          {!answer && !problem && <p className="quiet">Press Predict to see what the model answers.</p>}
        </div>
        <div role="alert">
          {wrong.length > 0 && (
            <p className="problem">
              {wrong.length === 1 ? "One value needs" : `${wrong.length} values need`} your attention:{" "}
              {wrong.map((name, at) => (
                <Fragment key={name}>
                  {at > 0 && ", "}
                  <a href={`#${idOf(names.indexOf(name))}`}>{name}</a>
                </Fragment>
              ))}
              .
            </p>
          )}
          {bad?.others.map((text) => (
            <p className="problem" key={text}>
              {text}
            </p>
          ))}
        </div>
        <div className="buttons">
          <button type="submit" className="primary" disabled={asking}>
            {asking ? "Predicting…" : "Predict"}
          </button>
          <button type="button" onClick={() => void copy()}>
            Copy as curl
          </button>
        </div>
        <div role="status" className="copied">
          {command?.copied && <p className="quiet">Copied.{hasToken() && " It takes the token from EVERGREEN_TOKEN."}</p>}
          {command && !command.copied && (
            <label>
              Copy this command:
              <textarea readOnly rows={4} value={command.text} onFocus={(event) => event.target.select()} />
            </label>
          )}
        </div>
        {answer?.release != null && !stale && <p className="quiet release">Answered by release {answer.release}.</p>}
      </section>
    </form>
  );
}

/** The problem without what it says of a field that was changed since; null when nothing is left of it. */
function without(problem: Problem | null, name: string): Problem | null {
  const errors = problem?.errors.filter(({ field }) => field !== name) ?? [];
  return problem && errors.length > 0 ? { ...problem, errors } : null;
}
