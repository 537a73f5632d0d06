import { useCallback, useEffect, useState } from "react";
import { About } from "./About";
import { Ask } from "./Ask";
import { Batch } from "./Batch";
import type { Card, Release } from "./model";
import type { Problem } from "./problems";
import { Releases } from "./Releases";
import { forgetToken, get, hasToken, isProblem } from "./service";
import { Token } from "./Token";
import { count } from "./words";

export function App() {
  const [card, setCard] = useState<Card | null>(null);
  const [releases, setReleases] = useState<Release[]>([]);
  const [problem, setProblem] = useState<Problem | null>(null);

  const load = useCallback(async () => {
    setProblem(null);
    const answer = await get<Card>("model");
    if (isProblem(answer)) return setProblem(answer);
    document.title = `${answer.model} \u00b7 evergreen`;
    setCard(answer);
    // Nothing on the page depends on the history: where it cannot be had, there is none to show.
    const history = await get<{ releases: Release[] }>("history");
    if (!isProblem(history)) setReleases(history.releases ?? []);
  }, []);

  useEffect(() => {
    void load();
  }, [load]);

  return (
    <>
      <Token />
      <a className="skip" href="#main">
        Skip to the form
      </a>
      <header className="top">
        <div className="wide">
          <p className="brand">
            <svg viewBox="0 0 16 16" aria-hidden="true">
              <path d="M8 1l4 5H10l3 4H9v5H7v-5H3l3-4H4z" />
            </svg>
            evergreen
          </p>
          <nav aria-label="The service">
            <a href="docs">API docs</a>
            <a href="model">Model as JSON</a>
            <a href="metrics">Metrics</a>
          </nav>
        </div>
      </header>
      <main id="main" className="wide" tabIndex={-1}>
        {problem && (
          <div className="card message" role="alert">
            <h1>The model cannot be shown</h1>
            <p>{problem.detail}</p>
            <button type="button" className="primary" onClick={() => void load()}>
              Try again
            </button>
          </div>
        )}
        {!problem && !card && <p role="status">Loading the model…</p>}
        {card && (
          <>
            <Title card={card} />
            <Ask card={card} />
            <Batch card={card} />
            <About card={card} />
            {releases.length > 0 && <Releases card={card} releases={releases} />}
          </>
        )}
      </main>
      {card && hasToken() && (
        <footer className="wide">
          <p>
            Your token is kept in this tab until it is closed. The links above do not carry it.{" "}
            <button
              type="button"
              className="link"
              onClick={() => {
                forgetToken();
                window.location.reload();
              }}
            >
              Forget the token
            </button>
          </p>
        </footer>
      )}
    </>
  );
}

function Title({ card }: { card: Card }) {
  return (
    <div className="title">
      <h1>{card.model}</h1>
      <p>
        Predicts <strong>{card.target}</strong>
        {what(card)} from {count(card.features.length, "feature")}.
      </p>
      <p className="badge">{card.release === null ? "No release" : `Release ${card.release}`}</p>
    </div>
  );
}

function what(card: Card): string {
  if (card.task === "regression") return card.unit ? ` in ${card.unit}` : "";
  if (card.labels && card.labels.length <= 4) return `: ${card.labels.join(", ").replace(/, ([^,]*)$/, " or $1")},`;
  return card.labels ? `, one of ${count(card.labels.length, "label")},` : "";
}
