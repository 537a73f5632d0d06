import type { Row } from "./model";

/** The request as a command for a shell. A token is not in it: it is taken from the shell's EVERGREEN_TOKEN. */
export function curl(url: string, row: Row, withToken: boolean): string {
  const bearer = withToken ? ` -H "Authorization: Bearer $EVERGREEN_TOKEN"` : "";
  return `curl ${quoted(url)} -H 'Content-Type: application/json'${bearer} -d ${quoted(JSON.stringify({ records: [row] }))}`;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
