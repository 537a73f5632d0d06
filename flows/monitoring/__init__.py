"""What a served model is observed by, and what has it retrained."""
