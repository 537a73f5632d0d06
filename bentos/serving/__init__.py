"""The supervisor of one model's endpoint: it owns the socket and replaces workers. No Bento carries this room. Read:

1. `server_states`: the states of a server as a table.
2. `supervisor`: `Supervisor.tick`, called in a loop. How a worker is replaced: `_check_health` kills or removes a dead
   or hung one, `_start_missing_workers` starts another with backoff; for a new release `start` and
   `_switch_when_ready` start all new workers first and then drain the old ones.
3. `processes`: starts one worker process of a package and talks with it; the other end of the line is
   `bentos.endpoint.uvicorn_worker`.
4. `ledger_client`: reads and writes the ledger in threads, so that a slow ledger delays nothing.
"""
