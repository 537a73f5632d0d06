"""What `evergreen init` needs: a table is profiled, and a first spec is written."""
