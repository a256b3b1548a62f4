"""Parts of an own project: everything that an experiment is made of."""
