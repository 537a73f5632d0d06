"""The HTTP endpoint of one model, carried by every Bento. Read in the order that a request takes:

1. `http1` reads HTTP, `asgi` routes it, holds it to the limits and logs it; `endpoint` is the state that both use.
2. `formats` finds JSON or CSV. `parse_fast` parses a plainly valid body into a `batch`; if it returns None,
   `parse_strict` parses the same body value by value and names every error as `problems`.
3. `guardrails` holds values to the suite's rules; `model` predicts, and `batching` joins concurrent requests for that.
4. `formats` writes the answer; `metrics`, `request_log` and `tracing` record it.

Beside that way: `mirroring` hands requests to a canary, `page`, `openapi` and `views` describe the endpoint, and
`uvicorn_worker` is the process around it, with its line to the supervisor.
"""
