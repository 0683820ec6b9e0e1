"""Plans of two pools: every pair of layouts over every split of the GPUs."""
