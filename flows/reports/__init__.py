"""What people read: reports of runs, the model card, monitoring pages and plots."""
