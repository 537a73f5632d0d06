import type { Answer, Card } from "./model";
import { number, percent } from "./words";

const MOST = 8;

/** The first prediction of an answer, as a person reads it. */
export function Prediction({ card, answer }: { card: Card; answer: Answer }) {
  const predicted = answer.predictions[0]!;
  if (card.task === "regression" && typeof predicted === "number") {
    const read = number(predicted);
    return (
      <>
        <p className="name">{card.target}</p>
        <p className="prediction">
          <data value={predicted}>{read}</data>
          {card.unit && <span className="unit"> {card.unit}</span>}
        </p>
        {Number(read.replaceAll(",", "").replace("\u2212", "-")) !== predicted && <p className="quiet">Exactly {predicted}</p>}
      </>
    );
  }
  const probabilities = Object.entries(answer.probabilities?.[0] ?? {}).sort(([, one], [, other]) => other - one);
  const rest = probabilities.slice(MOST);
  return (
    <>
      <p className="name">{card.target}</p>
      <p className="prediction">
        <data value={String(predicted)}>{String(predicted)}</data>
      </p>
      {probabilities.length > 0 && (
        <ul className="bars" aria-label="Probabilities">
          {probabilities.slice(0, MOST).map(([label, share]) => (
            <li key={label}>
              <span className="label">{label}</span> <data value={share}>{percent(share)}</data>
              <span className="bar" aria-hidden="true">
                <span style={{ width: `${share * 100}%` }} />
              </span>
            </li>
          ))}
        </ul>
      )}
      {rest.length > 0 && (
        <p className="quiet">
          {rest.length} others, together {percent(rest.reduce((sum, [, share]) => sum + share, 0))}
        </p>
      )}
    </>
  );
}
