"""What people read.

run: the reports of a run's steps and of a whole run, as Markdown and in the Prefect UI.
monitoring: the monitoring report as Markdown.
model_card: the model card, one HTML page (its template is model_card.html).
plots: every PNG image.
charts: the SVG charts of the model card, which take the colors of the page, light or dark.
markdown: the pieces that Markdown reports are made of.
http: serves the pages of runs on this machine.
"""
