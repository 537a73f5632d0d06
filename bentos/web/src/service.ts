// Requests to the service, all relative to this page, and the bearer token where it asks for one.

import { type Problem, problemOf } from "./problems";

// One origin may hold several services, each behind a prefix of its own.
const KEPT = `evergreen-token ${new URL(".", document.baseURI).pathname}`;

let token = sessionStorage.getItem(KEPT);
let prompt: (wrong: boolean) => Promise<string | null> = async () => null;
let prompting: Promise<string | null> | null = null;

/** Say who asks the person for a token; it answers null when none was given. */
export function onTokenNeeded(ask: typeof prompt): void {
  prompt = ask;
}

export function hasToken(): boolean {
  return token !== null;
}

/** Forget the token, so that the next request that needs one asks. */
export function forgetToken(): void {
  token = null;
  sessionStorage.removeItem(KEPT);
}

/** Ask the service; a Problem when it refuses or does not answer. Asks for a token, and again, while it is refused. */
export async function ask(path: string, request: RequestInit = {}): Promise<Response | Problem> {
  for (;;) {
    const sent = token;
    const headers = new Headers(request.headers);
    if (sent !== null) headers.set("Authorization", `Bearer ${sent}`);
    let response: Response;
    try {
      response = await fetch(path, { ...request, headers, cache: "no-store" });
    } catch {
      return { status: 0, detail: "The service did not answer. Is it running, and are you connected to it?", errors: [] };
    }
    if (response.ok) return response;
    if (response.status !== 401) return problemOf(response.status, await response.text());
    if (token === sent && (await newToken(sent !== null)) === null) return problemOf(401, await response.text());
  }
}

async function newToken(wrong: boolean): Promise<string | null> {
  // Requests that are refused at the same time wait for one answer.
  prompting ??= prompt(wrong);
  const given = await prompting;
  prompting = null;
  if (given === null) forgetToken();
  else {
    token = given;
    sessionStorage.setItem(KEPT, given);
  }
  return given;
}

/** Ask for JSON. */
export async function get<T>(path: string, request?: RequestInit): Promise<T | Problem> {
  const answer = await ask(path, request);
  if (!(answer instanceof Response)) return answer;
  try {
    return (await answer.json()) as T;
  } catch {
    return { status: answer.status, detail: "The service answered with something that is no JSON.", errors: [] };
  }
}

export function isProblem(answer: object): answer is Problem {
  return "detail" in answer && "errors" in answer;
}
