import type { Card, Release } from "./model";
import { number, time } from "./words";

/** What was served before, newest first. */
export function Releases({ card, releases }: { card: Card; releases: Release[] }) {
  const metric = card.metric ?? Object.keys(card.metrics)[0];
  return (
    <section className="card" aria-labelledby="releases">
      <h2 id="releases">Releases</h2>
      <div className="scroll" tabIndex={0} role="group" aria-label="Releases">
        <table>
          <thead>
            <tr>
              <th scope="col" className="number">
                Release
              </th>
              <th scope="col">Created</th>
              <th scope="col">State</th>
              {metric && (
                <th scope="col" className="number">
                  {metric}
                </th>
              )}
              <th scope="col">Reason</th>
            </tr>
          </thead>
          <tbody>
            {releases.map((one) => (
              <tr key={one.release} aria-current={one.release === card.release ? "true" : undefined}>
                <th scope="row" className="number">
                  {one.release}
                </th>
                <td className="nowrap">
                  <time dateTime={one.created}>{time(one.created)}</time>
                </td>
                <td className="nowrap">
                  <span className={one.state === "champion" ? "badge" : "badge past"}>{one.state}</span>
                </td>
                {metric && <td className="number">{number(one.metrics?.[metric])}</td>}
                <td className="reason">{one.reason}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
