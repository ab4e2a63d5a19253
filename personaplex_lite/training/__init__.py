"""Where weights come from: a little world, its voices, clips and dialogues, and the training loops."""
