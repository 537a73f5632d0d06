"""evergreen's endpoint beside its peers: the same fitted pipelines, the same bodies, the same core, one run."""
