import { type FormEvent, useEffect, useRef, useState } from "react";
import { onTokenNeeded } from "./service";

/** Asks for the bearer token, whenever a request was refused for want of one. */
export function Token() {
  const [wrong, setWrong] = useState(false);
  const [typed, setTyped] = useState("");
  const dialog = useRef<HTMLDialogElement>(null);
  const answer = useRef<(token: string | null) => void>(() => {});

  useEffect(
    () =>
      onTokenNeeded((wrong) => {
        setWrong(wrong);
        setTyped("");
        dialog.current?.showModal();
        return new Promise((resolve) => (answer.current = resolve));
      }),
    [],
  );

  function give(event: FormEvent) {
    event.preventDefault();
    const token = typed.trim();
    // No header can hold anything else, so no token is anything else.
    if (!/^[\x21-\x7e]+$/.test(token)) return setWrong(true);
    answer.current(token);
    dialog.current?.close();
  }

  return (
    <dialog ref={dialog} aria-labelledby="token-title" onClose={() => answer.current(null)}>
      <form onSubmit={give}>
        <h2 id="token-title">This service asks for a token</h2>
        <p className="quiet">It is kept in this tab only, until the tab is closed.</p>
        <div className="field">
          <label htmlFor="token">Token</label>
          <input
            id="token"
            type="password"
            autoComplete="off"
            value={typed}
            aria-invalid={wrong}
            aria-describedby={wrong ? "token-problem" : undefined}
            onChange={(event) => setTyped(event.target.value)}
          />
          <div role="alert">
            {wrong && (
              <p className="problem" id="token-problem">
                The service does not take this token.
              </p>
            )}
          </div>
        </div>
        <div className="buttons">
          <button type="submit" className="primary">
            Use the token
          </button>
          <button type="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
        </div>
      </form>
    </dialog>
  );
}
