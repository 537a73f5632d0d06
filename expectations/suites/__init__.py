"""Yours: one module per model, same name as the model, each with `suite = Suite(error=[...], warn=[...])`."""
