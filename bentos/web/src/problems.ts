// Refusals: what the service answers as application/problem+json, and what stands for it when nothing was answered.

export type BadValue = { row: number | null; field: string | null; problem: string };

export type Problem = { status: number; detail: string; errors: BadValue[] };

/** Read a refusal, also one that something between here and the service answered in its own words. */
export function problemOf(status: number, body: string): Problem {
  let said: Partial<Problem> & { title?: string } = {};
  try {
    const read: unknown = JSON.parse(body);
    if (read !== null && typeof read === "object") said = read;
  } catch {
    // It is no JSON, so all that is known is the status.
  }
  const detail = said.detail || said.title || `The service answered with status ${status}.`;
  return { status, detail, errors: Array.isArray(said.errors) ? said.errors : [] };
}

/** Part the errors into those of fields on the form, the first of each, and sentences about anything else. */
export function sorted(problem: Problem, names: string[]): { fields: Map<string, string>; others: string[] } {
  const fields = new Map<string, string>();
  const others: string[] = [];
  for (const { field, problem: text } of problem.errors) {
    if (field !== null && names.includes(field)) fields.set(field, fields.get(field) ?? text);
    else others.push(field === null ? sentence(text) : `${field}: ${text}`);
  }
  return { fields, others: problem.errors.length > 0 ? others : [problem.detail] };
}

export function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
}
