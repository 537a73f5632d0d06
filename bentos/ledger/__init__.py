"""The ledger: which releases exist, what happened to them, and which servers serve them. Read:

1. `database`: the tables, transactions, locks and migrations, on SQLite or PostgreSQL.
2. `releases`: releases and their events; the champion is the release of the last event that settles it.
3. `runs`: how runs of the flow ended, and what monitoring observed.
4. `servers`: heartbeats of servers, and which release each served when.
5. `packages`: the package of a release, checked against the ledger's digests.

The verbs that change the champion are in `bentos.releasing`, which checks the package first.
"""
