"""From weights and graphs to programs: the pipeline, layers in their best form, whole networks."""
