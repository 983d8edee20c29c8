"""Long runs: chaos, fuzzing, soak, and the compose file on a real engine; `make endurance` runs all of it."""
