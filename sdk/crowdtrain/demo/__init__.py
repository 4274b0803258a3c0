"""The main job, end to end, on an embedded chain: bought, cheated on, caught, done again, and paid."""
