"""The course beside the package: the notebooks' sources, what builds them, and the learner's checks."""
