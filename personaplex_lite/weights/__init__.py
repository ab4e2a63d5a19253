"""Getting weights: official names, files read strictly, the hub, whether they fit, a smaller folder."""
