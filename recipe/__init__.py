"""Everything `lite` is trained with: synthetic speech, a closed little world, and the training loops."""
