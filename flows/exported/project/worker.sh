#!/bin/sh
# Says to the Prefect server what is to run and when, and runs it.
set -eu
prefect --no-prompt work-pool create evergreen --type process --overwrite
prefect --no-prompt deploy --all
exec prefect worker start --pool evergreen --type process --name "$(hostname)"
