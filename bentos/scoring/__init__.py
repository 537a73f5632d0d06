"""What a Bento carries to score a table: rows are validated, predicted, and written."""
