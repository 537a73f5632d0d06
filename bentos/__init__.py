"""What is served: packages (Bentos), servers and the ledger of releases. Only this room imports bentoml.

Processes start at four places:
- `service`: BentoML's entry point into a Bento, which plain `bentoml serve` uses, too.
- `worker`: one process that answers requests on a socket; the supervisor starts it inside a package.
- `score`: scores a table inside a package.
- `package`, run as a script: builds one Bento in a fresh process.

A Bento carries `service`, `worker`, `score`, `logs` and `canary`, the rooms `endpoint` and `scoring`, the built page in
`static`, what these import of `pipeline`, and the artifact. It does not carry `serving` (the supervisor), `ledger`
(releases), `package`, `trial` and `releasing` (the verbs: promote, rollback, hold, ...).
"""
