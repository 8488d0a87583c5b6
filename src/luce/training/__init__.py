"""Training runs: a source → split → candidates → leaderboard → a saved run."""
