import { useState } from "react";
import type { Card } from "./model";
import { count, number, signed, time } from "./words";

const MOST = 12;

/** The model card: what the model is, how good it was on rows it never saw, what it looks at, why it was let through. */
export function About({ card }: { card: Card }) {
  return (
    <section className="card" aria-labelledby="about">
      <h2 id="about">About this model</h2>
      <div className="about">
        <div>
          <h3>Facts</h3>
          <Facts card={card} />
        </div>
        <div>
          <h3>Quality on held-out rows</h3>
          <Quality card={card} />
        </div>
        {card.importance && card.importance.length > 0 && (
          <div>
            <h3>What it looks at</h3>
            <Importance card={card} importance={card.importance} />
          </div>
        )}
        {card.reasons && card.reasons.length > 0 && (
          <div>
            <h3>Why it was released</h3>
            <ul className="reasons">
              {card.reasons.map((reason) => (
                <li key={reason}>{reason}</li>
              ))}
            </ul>
          </div>
        )}
      </div>
    </section>
  );
}

const TASKS = { regression: "a number", binary: "one of two labels", multiclass: "one of several labels" };

function Facts({ card }: { card: Card }) {
  const facts: [string, React.ReactNode][] = [
    ["Predicts", `${card.target}, ${TASKS[card.task]}${card.unit ? ` in ${card.unit}` : ""}`],
    ["Release", card.release ?? "none"],
    ["Created", <time dateTime={card.created}>{time(card.created)}</time>],
  ];
  if (card.estimator) facts.push(["Estimator", card.estimator]);
  if (card.rows) facts.push(["Fitted on", card.rows.fitted_on], ["Held out", count(card.rows.holdout, "row")]);
  if (card.positive !== undefined) facts.push(["Positive label", String(card.positive)]);
  facts.push(["Snapshot", <code title={card.snapshot}>{card.snapshot.slice(0, 16)}</code>]);
  return (
    <dl>
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function Quality({ card }: { card: Card }) {
  const names = Object.keys(card.metrics).sort((one, other) => Number(other === card.metric) - Number(one === card.metric));
  return (
    <div className="scroll" tabIndex={0} role="group" aria-label="Quality on held-out rows">
      <table>
        <thead>
          <tr>
            <th scope="col">Metric</th>
            <th scope="col" className="number">
              This model
            </th>
            {card.champion && (
              <>
                <th scope="col" className="number">
                  The one before
                </th>
                <th scope="col" className="number">
                  Difference
                </th>
              </>
            )}
          </tr>
        </thead>
        <tbody>
          {names.map((name) => {
            const higher = card.higher_is_better?.[name];
            return (
              <tr key={name} className={name === card.metric ? "decides" : undefined}>
                <th scope="row">
                  {name}
                  {name === card.metric && <span className="badge">decides</span>}
                  {higher !== undefined && <small>{higher ? "higher is better" : "lower is better"}</small>}
                </th>
                <td className="number">{number(card.metrics[name])}</td>
                {card.champion && (
                  <>
                    <td className="number">{number(card.champion[name])}</td>
                    <td className="number">
                      <Difference ours={card.metrics[name]} theirs={card.champion[name]} higher={higher} />
                    </td>
                  </>
                )}
              </tr>
            );
          })}
        </tbody>
      </table>
      {card.champion === null && <p className="quiet">There is no earlier model to compare it with.</p>}
    </div>
  );
}

type Compared = { ours: number | null | undefined; theirs: number | null | undefined; higher: boolean | undefined };

function Difference({ ours, theirs, higher }: Compared) {
  if (ours == null || theirs == null) return "\u2014";
  const difference = ours - theirs;
  if (higher === undefined || difference === 0) return signed(difference);
  const better = difference > 0 === higher;
  return (
    <span className={better ? "better" : "worse"}>
      {signed(difference)} <small>{better ? "better" : "worse"}</small>
    </span>
  );
}

function Importance({ card, importance }: { card: Card; importance: NonNullable<Card["importance"]> }) {
  const [all, setAll] = useState(false);
  const most = Math.max(...importance.map((one) => one.importance), 0) || 1;
  return (
    <>
      <p className="quiet">How much {card.metric ?? "the metric"} worsens when the values of a feature are shuffled.</p>
      <table className="importance">
        <caption className="unseen">Importance of features, most important first</caption>
        <thead className="unseen">
          <tr>
            <th scope="col">Feature</th>
            <th scope="col">Importance</th>
          </tr>
        </thead>
        <tbody>
          {importance.slice(0, all ? undefined : MOST).map((one) => (
            <tr key={one.feature}>
              <th scope="row">{one.feature}</th>
              <td>
                <span className="bar" aria-hidden="true">
                  <span style={{ width: `${(Math.max(one.importance, 0) / most) * 100}%` }} />
                </span>
                <span className="number">{number(one.importance)}</span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {importance.length > MOST && (
        <button type="button" className="link" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? "Show the most important only" : `Show all ${importance.length}`}
        </button>
      )}
    </>
  );
}
