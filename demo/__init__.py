"""The main job from end to end, with the real commands on the embedded defaults: `make demo`."""
