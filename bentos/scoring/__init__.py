"""What a Bento carries to score a table. `bentos.score` is the entry point and calls, for every part of the table:

1. `validation`: which rows the endpoint would refuse, and why.
2. `predict`: the answers to the other rows.
3. `output`: when all parts are done, one CSV file, Parquet file or database table.
"""
